package uplink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

// side is one of the two lanes that a lane is at the hub: what is new, and what
// waited.
type side struct {
	lane *lane
	wire string // its name at the hub
	late bool

	place twin.Position // where the hub has it, as far as is known
	known bool          // place is what the hub said since the last doubt
	seen  bool          // the hub ever said
	sent  twin.Position // where the hub has it once all that is under way has come
	high  uint64        // newest sequence that was sent of the present epoch
	era   int           // of what the hub remembers: rises when it went back
	run   int           // of what is under way: rises when it is sent again

	window  []queue.Record // what was read of the disk behind from, in order
	from    uint64
	upTo    uint64 // nothing else is on the disk up to here
	flights int    // under way
	asking  bool   // a question is
	most    int    // items in a batch, while the one that the hub refuses is looked for; 0 is all
	until   uint64 // that one is not behind this
	retry   backoff
	lost    time.Time // when the hub last went back
	losses  int       // how often lately
}

// restart forgets all but where the hub has it. What was read is of another life of
// the queue, under the same numbers.
func (s *side) restart() {
	s.reset()
	s.window, s.from, s.upTo = nil, 0, 0
	s.high, s.most, s.known = 0, 0, false
}

// reset has what is behind place sent again.
func (s *side) reset() {
	s.run++
	s.sent = s.place
	s.flights, s.asking = 0, false
}

// suspect has the hub asked before anything more is sent.
func (s *side) suspect() {
	s.reset()
	s.known = false
}

// back reports whether the hub, which had the side at least at before when it was
// sent something, has lost some of it when it answers p.
func (s *side) back(before, p twin.Position) bool {
	a, b := s.lane.rank(before.Epoch), s.lane.rank(p.Epoch)
	if a != b {
		return b < a
	}
	return b == 0 && p != before || p.Seq < before.Seq
}

// ahead reports whether p is behind place in the order of the lane.
func (s *side) ahead(p twin.Position) bool {
	a, b := s.lane.rank(s.place.Epoch), s.lane.rank(p.Epoch)
	return !s.seen || b > a || b == a && p.Seq > s.place.Seq
}

// errBack says that the hub was restored from an older copy, or is another one.
var errBack = errors.New("the hub holds less than it had confirmed")

// standing takes the hub's answer to what was sent when the side stood at before.
func (s *side) standing(ctx context.Context, p, before twin.Position, seen bool, now time.Time) error {
	var went error
	switch {
	case seen && s.back(before, p):
		went = fmt.Errorf("lane %s: %w: %d of epoch %s, not %d of epoch %s", s.wire, errBack, p.Seq, short(p.Epoch), before.Seq, short(before.Epoch))
		s.lane.env.warn(went)
		s.lane.live.suspect()
		s.lane.late.suspect()
		s.era++
		s.place = p
		s.reset()
	case s.ahead(p):
		if p.Epoch == s.lane.state.Life.Epoch {
			s.lane.tally.advance(s, p, now)
		}
		s.place = p
		if s.back(p, s.sent) {
			s.sent = p // it came by another way than was thought
		}
	}
	s.seen = true
	return errors.Join(went, s.lane.confirmed(ctx, s, now))
}

func short(epoch string) string {
	if epoch == "" {
		return "none"
	}
	return epoch[:min(len(epoch), 8)]
}

// waits says whether there is something to send.
func (s *side) waits() bool {
	l := s.lane
	if _, owes := l.owes(s.late, s.sent); owes {
		return true
	}
	at := l.at(s.sent)
	if s.late {
		live := l.at(l.live.place)
		_, _, ok := l.state.Life.lateFrom(at, live)
		return ok && l.live.known
	}
	_, last, _ := l.Queue.Span()
	return last > at
}

// wants says whether the hub has to be asked.
func (s *side) wants() bool {
	if s.known || s.asking {
		return false
	}
	old := s.lane.state.Old
	return !s.late || len(s.lane.state.Life.Deferred) > 0 || old != nil && len(old.Deferred) > 0
}

// read makes sure that the window has what is behind at: about size bytes, where
// there are as many up to end.
func (s *side) read(ctx context.Context, at, end uint64, size int) error {
	if at < s.from || at >= s.upTo {
		s.window, s.from, s.upTo = nil, at, at
	}
	for len(s.window) > 0 && s.window[0].Last() <= at {
		s.window[0] = queue.Record{}
		s.window, s.from = s.window[1:], at
	}
	have := 0
	for _, r := range s.window {
		have += len(r.Items)
	}
	for have < size && s.upTo < end {
		records, err := s.lane.Queue.Read(ctx, s.upTo, max(size-have, readAhead))
		if err != nil {
			return err
		}
		if len(records) == 0 {
			return fmt.Errorf("lane %s: nothing is to be read behind %d, where there are messages up to %d", s.lane.Name, s.upTo, end)
		}
		for _, r := range records {
			if r.Epoch != s.lane.state.Life.Epoch {
				s.window, s.upTo = nil, s.from
				return fmt.Errorf("lane %s: the queue has a new epoch", s.lane.Name)
			}
			if r.Last() > s.upTo {
				s.window, s.upTo, have = append(s.window, r), r.Last(), have+len(r.Items)
			}
		}
	}
	return nil
}

const readAhead = 1 << 20 // bytes of a read of the disk

// backoff is how long something that failed is left alone.
type backoff struct {
	pause time.Duration
	until time.Time
	err   error // why
}

const (
	minPause = 10 * time.Millisecond
	maxPause = 2 * time.Second // with the link known to be down, asking costs nothing but local work
)

// failed waits longer each time. random spreads devices that failed together.
func (b *backoff) failed(err error, now time.Time, random float64) {
	b.err = err
	b.pause = min(max(2*b.pause, minPause), maxPause)
	b.until = now.Add(b.pause/2 + time.Duration(random*float64(b.pause/2)))
}

func (b *backoff) worked() { *b = backoff{} }

func (b *backoff) ready(now time.Time) bool { return !now.Before(b.until) }
