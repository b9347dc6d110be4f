package queue

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/schema"
)

const epochKey = "tidemark.epoch" // in the stream's metadata

// Modules may be allowed any subject but those below devices., $ and _INBOX: so
// nobody but us can store.
func subjectOf(c Config) string { return "$OUTBOX." + streamOf(c) }

func streamOf(c Config) string {
	if c.Local {
		return "LOCAL_" + c.Lane
	}
	return "OUTBOX_" + c.Lane
}

func streamConfig(c Config, epoch string) jetstream.StreamConfig {
	out := jetstream.StreamConfig{
		Name:        streamOf(c),
		Description: "messages of modules that wait",
		Subjects:    []string{subjectOf(c)},
		Storage:     jetstream.FileStorage,
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		MaxBytes:    c.MaxBytes,
		AllowDirect: true,
		Metadata:    map[string]string{epochKey: epoch},
	}
	if c.Refuse {
		out.Discard = jetstream.DiscardNew
	}
	return out
}

func newEpoch() string {
	var b [12]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// load looks at what the disk has, and makes the stream where there is none. The
// caller holds.
func (q *Queue) load(ctx context.Context) error {
	q.mu.Lock()
	config, before := q.config, q.epoch
	q.mu.Unlock()
	s, epoch, made, err := q.open(ctx, config)
	if err != nil {
		return explain(err)
	}
	state := s.CachedInfo().State
	newest, lost, err := q.newest(ctx, state)
	if err != nil {
		return explain(err)
	}
	if lost && !made {
		if state.LastSeq > 0 {
			config.Warn(fmt.Errorf("queue %s: the newest record cannot be read: starting a new epoch behind message %d", config.Lane, newest.Last()))
		}
		if epoch, err = q.renew(ctx, config); err != nil {
			return explain(err)
		}
	}
	if before != "" && before != epoch && (made || !lost) {
		config.Warn(fmt.Errorf("queue %s: what was stored is gone: starting a new epoch", config.Lane))
	}
	oldest, _, err := q.next(ctx, state.FirstSeq, state.LastSeq)
	if err != nil {
		return explain(err)
	}
	dir := find(config)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.epoch != epoch {
		q.floor = 0
	}
	q.known, q.epoch, q.life, q.spots = true, epoch, q.life+1, spots{}
	q.first, q.last, q.bytes = max(oldest.From, 1), newest.Last(), int64(state.Bytes)
	if newest.Count == 0 {
		q.last = 0
	}
	q.head, q.tail = state.FirstSeq, state.LastSeq
	q.dir = dir
	return nil
}

// open makes the stream, or gives it our configuration. made says that there
// was none.
func (q *Queue) open(ctx context.Context, config Config) (s jetstream.Stream, epoch string, made bool, err error) {
	look, cancel := context.WithTimeout(ctx, lookTimeout)
	s, err = q.js.Stream(look, q.stream)
	cancel()
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		made = true
	case err != nil:
		return nil, "", false, fmt.Errorf("stream %s: %w", q.stream, err)
	default:
		epoch = s.CachedInfo().Config.Metadata[epochKey]
	}
	if epoch == "" || len(epoch) > 64 {
		epoch = newEpoch()
	}
	for range createTries {
		s, err = q.js.CreateOrUpdateStream(ctx, streamConfig(config, epoch))
		if refused, ok := errors.AsType[*jetstream.APIError](err); !ok || refused.ErrorCode != cannotCreate {
			break
		}
		select {
		case <-time.After(createPause):
		case <-ctx.Done():
		}
	}
	if err != nil {
		return nil, "", false, fmt.Errorf("stream %s with %d bytes: %w", q.stream, config.MaxBytes, err)
	}
	if made {
		// Where a configuration has rotted, JetStream makes the stream with the
		// messages that are there, and leaves the file as it is: at the next start
		// there would be no stream again, and another epoch. A change is written.
		if epoch, err = q.renew(ctx, config); err != nil {
			return nil, "", false, err
		}
	}
	return s, epoch, made, nil
}

// lookTimeout bounds the question for a stream, which needs no disk: a JetStream
// that stops in that moment never answers it, and may run again long before the
// caller's time is over.
const lookTimeout = 3 * time.Second

// A stream that is deleted takes its directory with it beside the answer, and so
// does away with the directory of one that is made right behind it.
const (
	createTries = 20
	createPause = 20 * time.Millisecond
)

// newest finds the newest record that can be read. lost says that there was, or
// may have been, a newer one: a stream without any may have lost its files.
func (q *Queue) newest(ctx context.Context, state jetstream.StreamState) (r Record, lost bool, err error) {
	if state.Msgs == 0 {
		return Record{}, true, nil
	}
	// Whether there is any record from a place on falls from yes to no once.
	var at, step uint64 = state.LastSeq, 1
	for {
		r, found, err := q.next(ctx, at, state.LastSeq)
		if err != nil {
			return Record{}, false, err
		}
		if found > 0 {
			return q.behind(ctx, r, found, state.LastSeq)
		}
		if at <= state.FirstSeq {
			return Record{}, true, nil
		}
		at, step = max(state.FirstSeq, at-min(at, step)), step*2
	}
}

// behind finds the newest record from that at found on.
func (q *Queue) behind(ctx context.Context, r Record, found, last uint64) (Record, bool, error) {
	end := last + 1 // nothing is from here on
	for found+1 < end {
		middle := found + (end-found)/2
		next, at, err := q.next(ctx, middle, last)
		if err != nil {
			return Record{}, false, err
		}
		if at > 0 {
			r, found = next, at
		} else {
			end = middle
		}
	}
	return r, found < last, nil
}

// renew writes a new epoch to the disk.
func (q *Queue) renew(ctx context.Context, config Config) (string, error) {
	epoch := newEpoch()
	if _, err := q.js.UpdateStream(ctx, streamConfig(config, epoch)); err != nil {
		return "", fmt.Errorf("new epoch: %w", err)
	}
	return epoch, nil
}

// Renew begins a new epoch: for a caller who knows that a sequence of the
// present one names another message than it did, because the disk lost its end. What
// is there stays, under its numbers.
func (q *Queue) Renew(ctx context.Context) error {
	return q.change(ctx, "new epoch", func(config Config) error {
		epoch, err := q.renew(ctx, config)
		if err != nil {
			return err
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		q.epoch, q.life = epoch, q.life+1
		return nil
	})
}

// Bound changes the bound.
func (q *Queue) Bound(ctx context.Context, maxBytes int64, refuse bool) error {
	return q.change(ctx, "bound", func(config Config) error {
		if maxBytes < MinBytes {
			return fmt.Errorf("%d bytes: want at least %d", maxBytes, MinBytes)
		}
		config.MaxBytes, config.Refuse = maxBytes, refuse
		q.mu.Lock()
		q.config = config
		q.mu.Unlock()
		return q.load(ctx) // the oldest may have gone
	})
}

// Delete removes the queue from the disk. It is refused while anything waits
// (ErrWaiting). The queue is of no use afterwards.
func (q *Queue) Delete(ctx context.Context) error {
	return q.change(ctx, "delete", func(config Config) error {
		if first, last, _ := q.Span(); first <= last {
			return fmt.Errorf("%d to %d: %w", first, last, ErrWaiting)
		}
		err := q.js.DeleteStream(ctx, q.stream)
		if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		q.gone, q.known = true, false
		return nil
	})
}

// List says which queues are on the disk.
func List(ctx context.Context, nc *nats.Conn) ([]Config, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	var out []Config
	found := js.ListStreams(ctx)
	for s := range found.Info() {
		c := Config{MaxBytes: s.Config.MaxBytes, Refuse: s.Config.Discard == jetstream.DiscardNew}
		lane, up := strings.CutPrefix(s.Config.Name, "OUTBOX_")
		if !up {
			if lane, c.Local = strings.CutPrefix(s.Config.Name, "LOCAL_"); !c.Local {
				continue
			}
		}
		if c.Lane = lane; schema.CheckName(lane) == nil {
			out = append(out, c)
		}
	}
	if err := found.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return nil, fmt.Errorf("list queues: %w", explain(err))
	}
	return out, nil
}

// change has do change the stream while nobody else does.
func (q *Queue) change(ctx context.Context, what string, do func(Config) error) error {
	err := q.hold(ctx)
	if err == nil {
		defer q.release()
		err = q.ready(ctx)
	}
	if err == nil {
		q.mu.Lock()
		config := q.config
		q.mu.Unlock()
		if err = do(config); err != nil {
			q.doubt()
		}
	}
	if err != nil {
		return fmt.Errorf("queue %s: %s: %w", q.lane, what, explain(err))
	}
	return nil
}

// find is the directory of the stream's files; empty when there is none to be
// seen.
func find(c Config) string {
	if c.Store == "" {
		return ""
	}
	found, err := filepath.Glob(filepath.Join(c.Store, "*", "streams", streamOf(c)))
	if err != nil || len(found) != 1 {
		return ""
	}
	return found[0]
}

// wiped reports whether somebody removed the files of the stream while the server
// has them open: what is written then goes nowhere, and JetStream does not notice.
func (q *Queue) wiped() bool {
	q.mu.Lock()
	dir := q.dir
	q.mu.Unlock()
	if dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, "msgs"))
	return errors.Is(err, os.ErrNotExist)
}

// explain makes errors of JetStream ours where a caller tells them apart.
func explain(err error) error {
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return fmt.Errorf("%w: %w", ErrStopped, err)
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return err
	}
	switch {
	case api.ErrorCode == storeFailed && strings.Contains(api.Description, "maximum"):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case api.ErrorCode == storeFailed && !strings.Contains(api.Description, "no space"):
		return err
	}
	switch api.ErrorCode {
	case storeFailed, 10002, 10023, 10028, 10047: // or the limit of account, server, memory, storage
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

const (
	cannotCreate jetstream.ErrorCode = 10049 // nats-server's JSStreamCreateErrF
	storeFailed  jetstream.ErrorCode = 10077 // nats-server's JSStreamStoreFailedF
	wrongLast    jetstream.ErrorCode = 10071 // nats-server's JSStreamWrongLastSequenceErrF
	wrongLastK   jetstream.ErrorCode = 10164 // the same, without the number
)
