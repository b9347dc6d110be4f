package reconciler

import (
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// sights remember when this agent saw each container start and exit, on its own
// monotonic clock. The runtime's times are wall-clock: on a device without a
// battery-backed clock they lie by decades, and jump.
type sights map[string]sight

// sight is one run of a container, as seen.
type sight struct {
	state    string    // as seen last
	pid      int       // while it runs
	restarts int       // tells one run from the next
	exit     time.Time // by the runtime's clock; tells one exit from the next, and nothing else
	started  time.Time // first seen running; zero when it was never seen so
	exited   time.Time // first seen exited, or without the process that it had
	former   bool      // it exited before the target was taken over
	forgiven int       // restarts that are not held against it: of before the target, or before this agent
}

// see returns what is observed at now with the times at which it was first seen,
// and forgets what is gone.
func (s sights) see(observed schema.Observed, now time.Time) schema.Observed {
	seen := schema.Observed{Containers: make([]schema.Container, len(observed.Containers))}
	for i, c := range observed.Containers {
		was, known := s[c.ID]
		is := was.next(c, known, now)
		s[c.ID] = is
		c.StartedAt, c.ExitedAt = is.started, is.exited
		if is.former {
			c.ExitedAt = time.Time{}
		}
		c.Restarts = max(0, c.Restarts-is.forgiven)
		seen.Containers[i] = c
	}
	if len(s) > len(observed.Containers) {
		s.forget(observed)
	}
	return seen
}

// next is what is known after c is seen.
func (was sight) next(c schema.Container, known bool, now time.Time) sight {
	sameRun := known && was.restarts == c.Restarts
	is := sight{state: c.State, restarts: c.Restarts}
	if !known && c.State != schema.StateExited {
		is.forgiven = c.Restarts // it may have been stable since, which nobody here has seen
	}
	switch c.State {
	case schema.StateRunning:
		if sameRun && was.state == c.State && was.pid == c.PID {
			return was
		}
		is.pid, is.started = c.PID, now
	case schema.StateExited:
		is.exit, is.exited = c.ExitedAt, now
		if sameRun && was.state != c.State {
			is.started, is.forgiven = was.started, was.forgiven
		}
		if sameRun && was.state == c.State && was.exit.Equal(c.ExitedAt) {
			return was
		}
	case schema.StateCreated:
		if sameRun { // what process it had ended without a trace
			is.started, is.exited, is.former, is.forgiven = was.started, was.exited, was.former, was.forgiven
			if was.state == schema.StateRunning {
				is.exited = now
			}
		}
	default: // paused; when it goes on, its time begins again
		if sameRun {
			is.forgiven = was.forgiven
		}
	}
	return is
}

// forgive starts every count anew, for another target: what ended before it is
// due at once, and former restarts do not lengthen a back-off.
func (s sights) forgive() {
	for id, is := range s {
		is.former, is.forgiven = !is.exited.IsZero(), is.restarts
		s[id] = is
	}
}

func (s sights) forget(observed schema.Observed) {
	there := make(map[string]bool, len(observed.Containers))
	for _, c := range observed.Containers {
		there[c.ID] = true
	}
	for id := range s {
		if !there[id] {
			delete(s, id)
		}
	}
}
