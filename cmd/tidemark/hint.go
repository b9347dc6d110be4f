package main

import (
	"sync"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// hints has the device look at the fleet repository when the hub says that it has
// moved, at some moment of the time that the hub asks a fleet to spread it over.
type hints struct {
	look func()                         // at the fleet repository
	wait func(twin.Moved) time.Duration // nil: twin.Moved.Wait

	mu     sync.Mutex
	timer  *time.Timer // nil: the device waits for nothing
	before time.Time   // when it ends
}

// heard takes what was said on twin.FleetMoved. One look is enough for all that was
// said before it, so that at most one is waited for: the earliest. Anything else
// than a hint, as of another version of the hub, has the device look at once: it
// does no more harm than a hint would.
func (h *hints) heard(data []byte) {
	moved, err := twin.ReadMoved(data)
	var wait time.Duration
	if err == nil && h.wait != nil {
		wait = h.wait(moved)
	} else if err == nil {
		wait = moved.Wait()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	due := time.Now().Add(wait)
	if h.timer != nil {
		if !due.Before(h.before) {
			return
		}
		h.timer.Stop()
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		h.mu.Lock()
		mine := h.timer == timer
		if mine {
			h.timer = nil
		}
		h.mu.Unlock()
		if mine {
			h.look()
		}
	})
	h.timer, h.before = timer, due
}
