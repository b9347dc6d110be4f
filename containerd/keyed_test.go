package containerd

import (
	"context"
	"sync"
	"testing"
)

func TestKeyedLetsOneInAndForgets(t *testing.T) {
	var k keyed
	var wg sync.WaitGroup
	inside := 0
	for range 50 {
		wg.Go(func() {
			unlock, err := k.lock(context.Background(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			inside++ // the race detector watches
			unlock()
		})
	}
	wg.Wait()
	if inside != 50 || len(k.held) != 0 {
		t.Fatalf("%d went in, %d keys are kept", inside, len(k.held))
	}
}

func TestKeyedGivesUpWithItsContext(t *testing.T) {
	var k keyed
	unlock, err := k.lock(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := k.lock(ctx, "a"); err == nil {
		t.Fatal("a key that is held was given out")
	}
	if !k.isHeld("a") {
		t.Fatal("the holder was forgotten")
	}
	unlock()
	if k.isHeld("a") {
		t.Fatal("the key is kept")
	}
}
