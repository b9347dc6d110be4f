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
	pid      int       // while it runs
	restarts int       // tells one run from the next
	started  time.Time // first seen running; zero when it was never seen so
	exited   time.Time // first seen exited
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
		seen.Containers[i] = c
	}
	if len(s) > len(observed.Containers) {
		s.forget(observed)
	}
	return seen
}

// next is what is known after c is seen.
func (was sight) next(c schema.Container, known bool, now time.Time) sight {
	switch c.State {
	case schema.StateRunning:
		if !known || was.pid != c.PID || was.restarts != c.Restarts || was.started.IsZero() {
			return sight{pid: c.PID, restarts: c.Restarts, started: now}
		}
	case schema.StateExited:
		if !known || was.restarts != c.Restarts {
			return sight{restarts: c.Restarts, exited: now}
		}
		if was.exited.IsZero() {
			was.exited = now
		}
	default:
		return sight{restarts: c.Restarts}
	}
	return was
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
