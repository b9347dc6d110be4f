package containerd

import (
	"context"
	"sync"
)

// keyed is a lock for each key. The zero value is ready.
type keyed struct {
	mu   sync.Mutex
	held map[string]*turn
}

type turn struct {
	token   chan struct{} // holds one value while nobody has the key
	waiters int           // including the holder
}

// lock waits for key, or for ctx to end.
func (k *keyed) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*turn{}
	}
	t := k.held[key]
	if t == nil {
		t = &turn{token: make(chan struct{}, 1)}
		t.token <- struct{}{}
		k.held[key] = t
	}
	t.waiters++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if t.waiters--; t.waiters == 0 {
			delete(k.held, key)
		}
	}
	select {
	case <-t.token:
		return func() { t.token <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// isHeld reports whether somebody has, or waits for, the key.
func (k *keyed) isHeld(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.held[key] != nil
}
