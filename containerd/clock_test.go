package containerd

import (
	"os"
	"testing"
	"time"
)

func TestParseStart(t *testing.T) {
	const tail = " S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2 3"
	for _, name := range []string{"(sh)", "(a b)", "(a) R 1 (b)", "()))"} {
		if got, err := parseStart([]byte("1 " + name + tail)); err != nil || got != 12345*tick {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, s := range []string{"", "1 (sh)", "1 sh S", "1 (sh) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 x", "1 (sh) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 -5", "1 (sh) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9223372036854775807"} {
		if got, err := parseStart([]byte(s)); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
	own, err := processStart(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(bootTime(time.Now()).Add(own)); age < -time.Second || age > time.Hour {
		t.Errorf("this process started %v ago", age)
	}
}

// A device without a battery for its clock starts modules in 1970.
func TestStartTimeFollowsTheClock(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 10, time.UTC)
	if got := startTime(now, now.Add(50*time.Millisecond)); got != now {
		t.Errorf("the label is right, but %v", got)
	}
	if got := startTime(time.Unix(100, 0), now); got.Sub(now).Abs() > time.Second {
		t.Errorf("the clock was set, but %v", got)
	}
}
