package uplink

import (
	"context"
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/twin"
)

// How often the disk is looked at for what waited too long.
const (
	minSweep = time.Second
	maxSweep = time.Minute
)

// sweep removes from the disk what waited too long, also while there is no hub: the
// ranges are noted first, and the hub is told them when it is there. It also keeps
// the state's word of what was seen on the disk fresh.
func (l *lane) sweep(ctx context.Context, now time.Time) error {
	if now.Sub(l.swept) < l.sweepPause() {
		return nil
	}
	l.swept = now
	first, last, _ := l.Queue.Span()
	upTo, err := l.expired(ctx, first, last)
	if err != nil {
		return fmt.Errorf("lane %s: %w", l.Name, err)
	}
	if upTo < first {
		if last > l.state.Life.Known && now.Sub(l.saved) > maxSweep {
			return l.save(l.state, now)
		}
		return nil
	}
	next := l.state
	next.Life = next.Life.noting(first, upTo, twin.LostTTL)
	if err := l.save(next, now); err != nil {
		return err
	}
	failpoint.Reach("uplink.noted")
	if err := l.Queue.Remove(ctx, upTo); err != nil {
		return fmt.Errorf("lane %s: %w", l.Name, err)
	}
	return nil
}

func (l *lane) sweepPause() time.Duration {
	if l.TTL == 0 {
		return maxSweep
	}
	return min(max(l.TTL/10, minSweep), maxSweep)
}

// expired finds the last message that waited too long, by halves: what is newer
// never waited longer.
func (l *lane) expired(ctx context.Context, first, last uint64) (upTo uint64, err error) {
	if l.TTL == 0 || first > last {
		return first - 1, nil
	}
	for low, high := first-1, last; ; {
		probe := low // first the oldest, then the middle
		if upTo >= first {
			probe = low + (high-low)/2
		}
		records, err := l.Queue.Read(ctx, probe, 1)
		if err != nil {
			return 0, err
		}
		if len(records) > 0 && records[0].Epoch != l.state.Life.Epoch {
			return first - 1, nil
		}
		if len(records) == 0 || l.env.clock.Age(records[0].Stored) <= l.TTL {
			if upTo < first {
				return first - 1, nil
			}
			high = probe
		} else {
			low, upTo = records[0].Last(), records[0].Last()
		}
		if low >= high {
			return upTo, nil
		}
	}
}
