package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// headerExpect makes JetStream store a record only behind the one that we think is
// the newest: a record whose acknowledgement was lost is never stored between
// others later.
const headerExpect = "Nats-Expected-Last-Sequence"

// Append stores r, of which Epoch and From are not looked at, and returns the
// sequence of its first message once it is synced to the disk. With ErrFull and
// ErrNoSpace nothing was stored; after any other error nobody knows.
func (q *Queue) Append(ctx context.Context, r Record) (from uint64, err error) {
	if err = r.check(); err == nil {
		err = q.room(len(r.Items))
	}
	if err == nil {
		err = q.hold(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("queue %s: store: %w", q.lane, err)
	}
	defer q.release()
	for range 3 {
		if err = q.ready(ctx); err != nil {
			break
		}
		var again bool
		if from, again, err = q.append(ctx, r); !again {
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("queue %s: store %d messages: %w", q.lane, r.Count, explain(err))
	}
	return from, nil
}

// append tries once. again says that nothing was stored, and that it may be now.
func (q *Queue) append(ctx context.Context, r Record) (from uint64, again bool, err error) {
	q.mu.Lock()
	config, tail := q.config, q.tail
	r.From = q.last + 1
	q.mu.Unlock()
	m := r.message(subjectOf(config))
	m.Header[headerExpect] = []string{strconv.FormatUint(tail, 10)}
	err = q.publish(ctx, m, tail+1)
	if err == nil && q.wiped() {
		return 0, true, errors.Join(errWiped, q.remake(ctx))
	}
	if err == nil {
		return r.From, false, q.took(ctx, r, tail+1, m.Size())
	}
	if errors.Is(explain(err), ErrFull) {
		freed, failed := q.reclaim(ctx)
		return 0, freed, errors.Join(err, failed)
	}
	q.doubt()
	refused, ok := errors.AsType[*jetstream.APIError](err)
	return 0, ok && (refused.ErrorCode == wrongLast || refused.ErrorCode == wrongLastK), err
}

// How long a disk may take. A stream whose write failed never answers, so the
// next try after silence waits for less.
const (
	storeTimeout  = 30 * time.Second
	silentTimeout = 3 * time.Second
)

// publish stores m at place at. The caller holds.
func (q *Queue) publish(ctx context.Context, m *nats.Msg, at uint64) error {
	limit := storeTimeout
	if q.silent {
		limit = silentTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer, err := q.nc.RequestMsgWithContext(ctx, m)
	if q.silent = errors.Is(err, context.DeadlineExceeded); q.silent {
		return errors.Join(ErrSilent, q.room(len(m.Data)))
	}
	if err != nil {
		return err
	}
	return readAck(answer.Data, at)
}

// errWiped says why a record was stored again.
var errWiped = errors.New("somebody removed the stream's files")

// remake makes the stream anew, in a place where files can be found again.
func (q *Queue) remake(ctx context.Context) error {
	q.doubt()
	err := q.js.DeleteStream(ctx, q.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	return err
}

// recordRoom is what JetStream needs for a record beside its headers and items,
// in bytes.
const recordRoom = 64

// took notes that r was stored at place at.
func (q *Queue) took(ctx context.Context, r Record, at uint64, size int) error {
	q.mu.Lock()
	if q.last == 0 || q.head == 0 {
		q.head = at
	}
	q.last, q.tail, q.bytes = r.Last(), at, q.bytes+int64(size)+recordRoom
	q.first = min(q.first, q.last)
	full := q.bytes > q.config.MaxBytes
	close(q.grown)
	q.grown = make(chan struct{})
	q.mu.Unlock()
	if full {
		if err := q.measure(ctx); err != nil {
			q.doubt() // it is stored all the same
		}
	}
	return nil
}

// measure asks what is there: the bound may have dropped the oldest.
func (q *Queue) measure(ctx context.Context) error {
	s, err := q.js.Stream(ctx, q.stream)
	if err != nil {
		return err
	}
	state := s.CachedInfo().State
	oldest, _, err := q.next(ctx, state.FirstSeq, state.LastSeq)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes, q.head, q.first = int64(state.Bytes), state.FirstSeq, max(oldest.From, 1)
	return nil
}

// maxAck bounds JetStream's acknowledgement, in bytes.
const maxAck = 16 << 10

// readAck checks that the record was stored at place want.
func readAck(data []byte, want uint64) error {
	var ack struct {
		Seq   uint64              `json:"seq"`
		Error *jetstream.APIError `json:"error"`
	}
	if len(data) > maxAck {
		return fmt.Errorf("read acknowledgement: %d bytes are more than it has", len(data))
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return fmt.Errorf("read acknowledgement: %w", err)
	}
	if ack.Error != nil {
		return ack.Error
	}
	if ack.Seq != want {
		return fmt.Errorf("read acknowledgement: it was stored as number %d, not %d", ack.Seq, want)
	}
	return nil
}
