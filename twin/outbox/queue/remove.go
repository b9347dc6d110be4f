package queue

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// strides is how many times a queue is cleared while as much goes through it as it
// may hold: clearing costs a write.
const strides = 64

// Remove says that nobody needs what is up to a sequence any more. Whole records
// go, at once or when it is worth the write, at the latest when a full queue needs the
// room; never the newest, which carries the numbering. What is removed is not
// in Span, and may be there again after a restart.
func (q *Queue) Remove(ctx context.Context, upTo uint64) error {
	q.mu.Lock()
	q.floor = max(q.floor, min(upTo, q.last))
	base := q.first - 1
	removable, all := q.floor-min(base, q.floor), q.last-min(base, q.last)
	worth := removable > 0 && float64(q.bytes)*float64(removable)/float64(all) >= float64(q.config.MaxBytes/strides)
	q.mu.Unlock()
	if !worth {
		return nil
	}
	err := q.hold(ctx)
	if err == nil {
		defer q.release()
		if err = q.ready(ctx); err == nil {
			_, err = q.reclaim(ctx)
		}
	}
	if err != nil {
		q.doubt()
		return fmt.Errorf("queue %s: remove up to %d: %w", q.lane, upTo, explain(err))
	}
	return nil
}

// reclaim removes what nobody needs. freed says that there was something. The
// caller holds.
func (q *Queue) reclaim(ctx context.Context) (freed bool, err error) {
	q.mu.Lock()
	floor, head, tail := q.floor, q.head, q.tail
	low, high := q.spots.around(floor, head, tail)
	q.mu.Unlock()
	// low grows to the last place all up to which is not needed.
	for low < high {
		r, found, err := q.next(ctx, low+(high-low+1)/2, tail)
		if err != nil {
			return false, err
		}
		if found > 0 && r.Last() <= floor {
			low = found
		} else {
			high = low + (high-low+1)/2 - 1
		}
	}
	low = min(low, tail-min(tail, 1))
	if low < head {
		return false, nil
	}
	s, err := q.js.Stream(ctx, q.stream)
	if err != nil {
		return false, err
	}
	if err := s.Purge(ctx, jetstream.WithPurgeSequence(low+1)); err != nil {
		return false, err
	}
	return true, q.measure(ctx)
}

// Room says whether a record of size bytes would be stored now, with what nobody
// needs any more out of the way: a queue that refuses, and is full, would not. It
// is a good guess.
func (q *Queue) Room(size int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	base := q.first - 1
	needed := q.last - min(max(base, q.floor), q.last)
	all := q.last - min(base, q.last)
	return !q.config.Refuse || all == 0 || float64(q.bytes)*float64(needed)/float64(all)+float64(size) <= float64(q.config.MaxBytes)
}
