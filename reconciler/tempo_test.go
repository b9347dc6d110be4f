package reconciler

import (
	"testing"
	"time"
)

// A pass that is kicked after a rest is not put off; those of a long row take an
// eighth of the time.
func TestTempo(t *testing.T) {
	var pace tempo
	now := time.Unix(1_800_000_000, 0)
	pass := func(took time.Duration) (rest time.Duration) {
		rest = pace.rest(now, now.Add(took))
		now = now.Add(took + rest)
		return rest
	}
	for i := range 8 {
		if rest := pass(30 * time.Millisecond); rest != 0 {
			t.Fatalf("pass %d after a rest is followed by a wait of %v", i, rest)
		}
	}
	began, spent := now, time.Duration(0)
	for range 100 {
		pass(30 * time.Millisecond)
		spent += 30 * time.Millisecond
	}
	if share := now.Sub(began) / spent; share < passShare-1 || share > passShare+1 {
		t.Errorf("100 passes of 30 ms in %v, want %v", now.Sub(began), passShare*spent)
	}
	if rest := pass(2 * time.Minute); rest != passRest {
		t.Errorf("a runtime that hung is followed by a wait of %v, want %v", rest, passRest)
	}
	now = now.Add(time.Hour)
	if rest := pass(30 * time.Millisecond); rest != 0 {
		t.Errorf("after an hour of rest a pass is followed by a wait of %v", rest)
	}
}
