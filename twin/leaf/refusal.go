package leaf

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// refusals slow the link down while the hub does not admit this device's key: asked
// thrice a second by each of thousands, for ever, a hub does nothing else. A hub that
// cannot be reached is another matter: it is to be found within a second.
type refusals struct {
	mu    sync.Mutex
	told  bool          // since the last connection was made
	count int           // of connections in a row
	wake  chan struct{} // closed, and replaced, by hurry
}

const (
	refusalsAtOnce = 3 // a hub that was just started may not have read the fleet repository yet
	refusalPause   = 30 * time.Second
)

func newRefusals() *refusals { return &refusals{wake: make(chan struct{})} }

// isRefusal reports whether that is what the server says when the hub has not
// admitted it; there is no event of it.
func isRefusal(text string) bool {
	return strings.Contains(text, "Leafnode Error") && strings.Contains(text, "Authorization Violation")
}

// errRefused is what a person is told of it.
var errRefused = fmt.Errorf("link to the hub: it does not admit this device's key: is what `tidemark enroll` prints committed, under this device's name? it is asked again each %s or so, and at once after `tidemark reconcile`", refusalPause)

// tell notes one.
func (r *refusals) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = true
}

// rest waits as long as the refusals so far ask for, unless it is hurried.
func (r *refusals) rest(ctx context.Context) {
	r.mu.Lock()
	if r.count++; !r.told {
		r.count = 0
	}
	r.told = false
	d, wake := restAfter(r.count), r.wake
	r.mu.Unlock()
	if d == 0 {
		return
	}
	timer := time.NewTimer(d*3/4 + rand.N(d/2)) // not all of a fleet at the same time
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
}

// restAfter is the wait after so many refusals in a row.
func restAfter(count int) time.Duration {
	if count <= refusalsAtOnce {
		return 0
	}
	return min(time.Second<<min(count-refusalsAtOnce-1, 10), refusalPause)
}

// hurry ends the wait, and begins anew with short ones.
func (r *refusals) hurry() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count = 0
	close(r.wake)
	r.wake = make(chan struct{})
}

// lasts reports whether the hub refused the last connection that was made.
func (r *refusals) lasts() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told || r.count > 0
}

// Relink has the hub asked at once, where it was not because it has refused this
// device: its definition may have changed.
func (l *Leaf) Relink() { l.log.refusals.hurry() }

// Refused says why the hub does not let this device in; nil when it does, and when it
// cannot be reached.
func (l *Leaf) Refused() error {
	if up, _ := l.Linked(); up || !l.log.refusals.lasts() {
		return nil
	}
	return errRefused
}
