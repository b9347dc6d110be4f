package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	maxRead     = 4 << 20          // bytes of one read, about
	maxRecords  = 1024             // of one read
	near        = 64               // records that are rather read and left out than searched around
	readTimeout = 10 * time.Second // for an answer from the disk
)

// Read reads records whose last sequence is above after, oldest first: at least one
// when there is one, and no more once they have maxBytes. It never waits for
// new ones. It answers with what is there under one epoch (Record.Epoch).
func (q *Queue) Read(ctx context.Context, after uint64, maxBytes int) ([]Record, error) {
	records, err := q.read(ctx, after, min(max(maxBytes, 1), maxRead))
	if err != nil {
		q.doubt()
		return nil, fmt.Errorf("queue %s: read behind %d: %w", q.lane, after, explain(err))
	}
	return records, nil
}

func (q *Queue) read(ctx context.Context, after uint64, maxBytes int) ([]Record, error) {
	for {
		if err := q.settle(ctx); err != nil {
			return nil, err
		}
		q.mu.Lock()
		life, epoch := q.life, q.epoch
		tail, last := q.tail, q.last
		low, high := q.spots.around(after, q.head, tail)
		q.mu.Unlock()
		if after >= last {
			return nil, nil
		}
		records, at, err := q.from(ctx, after, low, high, tail, maxBytes)
		if err != nil {
			return nil, err
		}
		q.mu.Lock()
		same := q.life == life
		if same && len(records) > 0 {
			q.spots.add(spot{records[len(records)-1].Last(), at})
		}
		q.mu.Unlock()
		if !same {
			continue
		}
		if len(records) == 0 {
			q.doubt() // the newest was there, and is not: look what is
			return nil, q.settle(ctx)
		}
		for i := range records {
			records[i].Epoch = epoch
		}
		return records, nil
	}
}

// settle looks at what the disk has, where that is in doubt.
func (q *Queue) settle(ctx context.Context) error {
	q.mu.Lock()
	known := q.known
	q.mu.Unlock()
	if known {
		return nil
	}
	if err := q.hold(ctx); err != nil {
		return err
	}
	defer q.release()
	return q.ready(ctx)
}

// from reads records behind after, all of which are behind place low and, the
// first, not behind place high. It returns the place of the last.
func (q *Queue) from(ctx context.Context, after, low, high, tail uint64, maxBytes int) (out []Record, at uint64, err error) {
	for high-low > near {
		middle := low + (high-low)/2
		r, found, err := q.next(ctx, middle, tail)
		if err != nil {
			return nil, 0, err
		}
		if found > 0 && r.Last() <= after {
			low = found
		} else {
			high = middle
		}
	}
	for low < tail && len(out) == 0 {
		found, err := q.batch(ctx, low+1, maxRecords, maxBytes)
		if err != nil {
			return nil, 0, err
		}
		if len(found) == 0 {
			r, place, err := q.next(ctx, low+1, tail)
			if err != nil || place == 0 {
				return nil, 0, err
			}
			found = []placed{{r, place}}
		}
		for _, p := range found {
			low = p.at
			if p.Count > 0 && p.Last() > after {
				out, at = append(out, p.Record), p.at
			}
		}
	}
	return out, at, nil
}

// placed is a record with its place in the stream; one that is none has no
// Count.
type placed struct {
	Record
	at uint64
}

// next finds the first record at place from or behind it, up to place last; place 0
// when there is none. JetStream steps over a record that it cannot read, and not over
// a file that it cannot read: so we do, with steps that double.
func (q *Queue) next(ctx context.Context, from, last uint64) (Record, uint64, error) {
	seen := from // below it there is none
	for step := uint64(1); seen <= last && seen > 0; {
		probe := min(seen+step-1, last)
		found, err := q.batch(ctx, probe, 1, 1)
		if err != nil {
			return Record{}, 0, err
		}
		switch {
		case len(found) == 0 && probe == last:
			return Record{}, 0, nil
		case len(found) == 0:
			seen, step = probe+1, step*2
		case found[0].Count == 0: // not one of ours
			seen, step = found[0].at+1, 1
		case probe == seen:
			return found[0].Record, found[0].at, nil
		default:
			step = max(1, (probe-seen+1)/2)
		}
	}
	return Record{}, 0, nil
}

// batch asks JetStream for the records at place from and behind it, at most count,
// and no more once they have maxBytes. None is no error: there is none, or the
// first cannot be read.
func (q *Queue) batch(ctx context.Context, from uint64, count, maxBytes int) ([]placed, error) {
	request, err := json.Marshal(struct {
		Seq      uint64 `json:"seq"`
		Batch    int    `json:"batch"`
		MaxBytes int    `json:"max_bytes"`
	}{from, count, maxBytes})
	if err != nil {
		return nil, err
	}
	inbox := q.nc.NewInbox() // not below the one of requests, or each answer would come twice
	sub, err := q.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	if err := q.nc.PublishRequest("$JS.API.DIRECT.GET."+q.stream, inbox, request); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var out []placed
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, err
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204", "404":
			return out, nil
		default:
			return nil, fmt.Errorf("JetStream answers %s %s", status, m.Header.Get("Description"))
		}
		p, err := place(m)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
}

// place reads one answer. What is no record of ours has a place all the same.
func place(m *nats.Msg) (placed, error) {
	at, err := strconv.ParseUint(m.Header.Get(nats.JSSequence), 10, 64)
	if err != nil || at == 0 {
		return placed{}, errors.New("JetStream's answer has no sequence")
	}
	r, err := readRecord(m.Header, m.Data)
	if err != nil {
		return placed{at: at}, nil
	}
	return placed{r, at}, nil
}
