package reconciler

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// kick wakes a loop. Kicks collapse into one and never block. The zero value is
// ready.
type kick struct {
	once sync.Once
	c    chan struct{}
}

func (k *kick) wait() <-chan struct{} {
	if k == nil {
		return nil // nobody kicks
	}
	k.once.Do(func() { k.c = make(chan struct{}, 1) })
	return k.c
}

func (k *kick) now() {
	k.wait()
	select {
	case k.c <- struct{}{}:
	default:
	}
}

// pause returns after d, when ctx ends, or when k is kicked, and then reports
// true. k may be nil.
func pause(ctx context.Context, d time.Duration, k *kick) (kicked bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return false
	case <-k.wait():
		return true
	}
}

// jitter is d, up to a tenth shorter or longer, so that a fleet that came up
// together does not ask together.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}
