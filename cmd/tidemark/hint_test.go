package main

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// TestHintsAreSpread: when a commit comes, a fleet must not ask the Git server all
// at once; and a device that hears of ten commits looks once.
func TestHintsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		var looks []time.Duration
		h := &hints{look: func() { mu.Lock(); defer mu.Unlock(); looks = append(looks, time.Since(start)) },
			wait: func(m twin.Moved) time.Duration { return m.Spread / 2 }} // chance, for once, is known
		say := func(spread time.Duration) { h.heard(twin.Moved{Commit: "c", Spread: spread}.Encode()) }
		say(60 * time.Second)
		say(80 * time.Second) // at 40s: the look at 30s sees it too
		time.Sleep(10 * time.Second)
		say(20 * time.Second) // at 20s: earlier, so it takes the place of the one at 30s
		time.Sleep(time.Minute)
		say(0)
		time.Sleep(time.Second)
		h.heard([]byte("of another version"))
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if want := []time.Duration{20 * time.Second, 70 * time.Second, 71 * time.Second}; !slices.Equal(looks, want) {
			t.Errorf("looked at %v, want %v", looks, want)
		}
	})
}

// TestHintsWaitWithinTheSpread draws as the agent does.
func TestHintsWaitWithinTheSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		quarters := map[time.Duration]int{}
		for range 400 {
			h := &hints{look: func() { mu.Lock(); defer mu.Unlock(); quarters[time.Since(start)/(10*time.Second)]++ }}
			h.heard(twin.Moved{Commit: "c", Spread: 40 * time.Second}.Encode())
		}
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		for q := range time.Duration(4) {
			if n := quarters[q]; n < 50 || len(quarters) != 4 { // 100, give or take 9
				t.Fatalf("devices that looked, by quarter of the spread: %v", quarters)
			}
		}
	})
}
