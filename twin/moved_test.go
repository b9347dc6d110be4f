package twin

import (
	"strings"
	"testing"
	"time"
)

func TestMovedIsReadAsItWasWritten(t *testing.T) {
	for wire, want := range map[string]Moved{
		`{"commit":"1f0c"}`:                  {Commit: "1f0c"},
		`{"commit":"1f0c","spread":"50s"}`:   {Commit: "1f0c", Spread: 50 * time.Second},
		`{"commit":"1f0c","spread":"10m0s"}`: {Commit: "1f0c", Spread: MaxSpread},
	} {
		got, err := ReadMoved([]byte(wire))
		if err != nil || got != want || string(got.Encode()) != wire {
			t.Errorf("%s: %+v, %v, %s", wire, got, err, got.Encode())
		}
	}
	for _, wire := range []string{"", "x", "[]", `{"spread":5}`, `{"spread":"x"}`, `{"spread":"-1s"}`, `{"spread":"11m"}`, `{"spread":"1e9h"}`, `{"commit":"` + strings.Repeat("x", maxMoved) + `"}`} {
		if m, err := ReadMoved([]byte(wire)); err == nil {
			t.Errorf("%.40s: %+v", wire, m)
		}
	}
}

// TestFleetLooksWithinTheSpread: of 5,000 devices none waits longer, and in no
// second look many more than their share.
func TestFleetLooksWithinTheSpread(t *testing.T) {
	const devices, seconds = 5000, 50
	m := Moved{Spread: seconds * time.Second}
	var inSecond [seconds]int
	for range devices {
		w := m.Wait()
		if w < 0 || w >= m.Spread {
			t.Fatalf("a device waits %s", w)
		}
		inSecond[w/time.Second]++
	}
	for s, n := range inSecond {
		if n > 2*devices/seconds {
			t.Errorf("%d devices look in second %d", n, s)
		}
	}
	if (Moved{}).Wait() != 0 {
		t.Error("without a spread a device waits")
	}
}
