// Package keyed is a lock for each of many things that have names.
package keyed

import (
	"context"
	"sync"
)

// Lock is a lock for each key. The zero value is ready; nothing is kept of a key
// that nobody holds or waits for.
type Lock struct {
	mu   sync.Mutex
	held map[string]*turn
}

type turn struct {
	token   chan struct{} // holds one value while nobody has the key
	waiters int           // including the holder
}

// Lock waits for key, or for ctx to end: the error is its cause then. Who gets
// unlock calls it once.
func (l *Lock) Lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*turn{}
	}
	t := l.held[key]
	if t == nil {
		t = &turn{token: make(chan struct{}, 1)}
		t.token <- struct{}{}
		l.held[key] = t
	}
	t.waiters++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if t.waiters--; t.waiters == 0 {
			delete(l.held, key)
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

// IsHeld reports whether somebody has, or waits for, the key.
func (l *Lock) IsHeld(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[key] != nil
}
