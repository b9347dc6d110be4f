package keyed

import (
	"context"
	"sync"
	"testing"
)

func TestLockLetsOneInAndForgets(t *testing.T) {
	var l Lock
	var wg sync.WaitGroup
	inside := 0
	for range 50 {
		wg.Go(func() {
			unlock, err := l.Lock(context.Background(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			inside++ // the race detector watches
			unlock()
		})
	}
	wg.Wait()
	if inside != 50 || len(l.held) != 0 {
		t.Fatalf("%d went in, %d keys are kept", inside, len(l.held))
	}
}

func TestLockGivesUpWithItsContext(t *testing.T) {
	var l Lock
	unlock, err := l.Lock(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Lock(ctx, "a"); err == nil {
		t.Fatal("a key that is held was given out")
	}
	if !l.IsHeld("a") {
		t.Fatal("the holder was forgotten")
	}
	unlock()
	if l.IsHeld("a") {
		t.Fatal("the key is kept")
	}
}
