package uplink

import (
	"time"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/twin"
)

// LateAfter is how old what waits has to be for what is new to go before it.
const LateAfter = 10 * time.Second

// postpone defers what waits, if there is so much of it, and so old, that what is
// new should go first: more than a batch of at most size bytes. The oldest is what
// the live side's window begins with.
//
// First the disk knows what is deferred; then the range goes to the hub in the
// lane; once the hub has it, the late lane begins. Messages that are under way may
// come before the range does. The hub then takes nothing of it, the lane stands
// within it, and fit makes it smaller. Only where the range ends with messages that
// were never sent is it sure that a lane which stands behind it has got it as it
// was: so where none are new, nothing is deferred.
func (l *lane) postpone(size int, now time.Time) (done bool, err error) {
	s := &l.live
	if !l.LiveFirst || !s.known || len(s.window) == 0 {
		return false, nil
	}
	if _, owes := l.owes(false, s.sent); owes {
		return false, nil
	}
	from := l.at(s.sent) + 1
	if n := len(l.state.Life.Deferred); n > 0 {
		from = max(from, l.state.Life.Deferred[n-1].To+1)
	}
	first, to, bytes := l.Queue.Span()
	if to < from || to <= max(l.start, s.high) || len(l.state.Life.open(l.lateAt())) >= maxOpen {
		return false, nil
	}
	waiting := to - max(from, first) + 1
	if from > to || waiting <= twin.MaxItems && float64(bytes)*float64(waiting)/float64(to-first+1) <= float64(size) {
		return false, nil
	}
	if oldest := s.window[0]; oldest.Last() < from || l.env.clock.Age(oldest.Stored) <= l.env.lateAfter {
		return false, nil
	}
	next := l.state
	next.Life = next.Life.deferring(from, to)
	if err := l.save(next, now); err != nil {
		return false, err
	}
	failpoint.Reach("uplink.deferred")
	return true, nil
}
