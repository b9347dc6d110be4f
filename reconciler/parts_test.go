package reconciler

import (
	"math"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

func TestBackoff(t *testing.T) {
	const s = time.Second
	own := schema.Restart{Min: schema.Duration(s), Max: schema.Duration(3 * s)}
	for _, tc := range []struct {
		restart schema.Restart
		n       int
		want    time.Duration
	}{
		{schema.Restart{}, -1, 0}, // at once
		{schema.Restart{}, 0, 0},
		{schema.Restart{}, 1, s},
		{schema.Restart{}, 2, 2 * s},
		{schema.Restart{}, 9, 256 * s},
		{schema.Restart{}, 10, 300 * s},
		{schema.Restart{}, math.MaxInt, 300 * s},
		{schema.Restart{Max: schema.Duration(3 * s)}, 3, 3 * s},
		{own, 1, 2 * s},
		{own, 2, 3 * s},
		{schema.Restart{Min: schema.Duration(time.Hour)}, 9, time.Hour},
		{schema.Restart{Min: math.MaxInt64, Max: math.MaxInt64}, 9, math.MaxInt64},
		{schema.Restart{Min: 3, Max: math.MaxInt64}, 1000, math.MaxInt64},
		{schema.Restart{Min: schema.Duration(9 * s), Max: schema.Duration(s)}, 0, s},
	} {
		if got := Backoff(tc.restart, tc.n); got != tc.want {
			t.Errorf("Backoff(%+v, %d) is %v, want %v", tc.restart, tc.n, got, tc.want)
		}
	}
}

func TestRetriesOfEverythingElse(t *testing.T) {
	for n, want := range map[int]time.Duration{-1: 10 * time.Second, 0: 10 * time.Second, 4: 160 * time.Second, 5: 5 * time.Minute, math.MaxInt: 5 * time.Minute} {
		if got := retryAfter(n); got != want {
			t.Errorf("retry %d waits %v, want %v", n, got, want)
		}
	}
}

func TestJitterStaysNear(t *testing.T) {
	for range 1000 {
		if d := jitter(time.Minute); d < 54*time.Second || d > 66*time.Second {
			t.Fatalf("jitter is %v", d)
		}
	}
	if d := jitter(1); d < 0 || d > 2 {
		t.Errorf("jitter of 1 ns is %v", d)
	}
}

func TestNews(t *testing.T) {
	var n news
	for i, tc := range []struct {
		topic, message string
		want           bool
	}{
		{"a", "read tcp 10.0.0.1:5123: reset", true},
		{"a", "read tcp 10.0.0.1:5124: reset", false}, // the port says nothing new
		{"b", "read tcp 10.0.0.1:5124: reset", true},
		{"a", "no such host", true},
		{"a", "no such host", false},
	} {
		if got := n.is(tc.topic, tc.message); got != tc.want {
			t.Errorf("%d: is news: %v", i, got)
		}
	}
	if !n.over("a") || n.over("a") || !n.is("a", "no such host") {
		t.Error("what is over can begin again")
	}
}

// Sights are of this agent's clock, whatever the runtime says.
func TestSights(t *testing.T) {
	start := time.Now()
	s, at := sights{}, start
	see := func(c schema.Container, later time.Duration) schema.Container {
		at = at.Add(later)
		c.ID, c.StartedAt, c.ExitedAt = "a", time.Unix(0, 0), time.Unix(1, 0)
		return s.see(schema.Observed{Containers: []schema.Container{c}}, at).Containers[0]
	}
	check := func(what string, c schema.Container, started, exited time.Duration) {
		t.Helper()
		want := func(d time.Duration) time.Time {
			if d < 0 {
				return time.Time{}
			}
			return start.Add(d)
		}
		if !c.StartedAt.Equal(want(started)) || !c.ExitedAt.Equal(want(exited)) {
			t.Errorf("%s: started %v, exited %v, want %v, %v after the start", what, c.StartedAt.Sub(start), c.ExitedAt.Sub(start), started, exited)
		}
	}
	running := schema.Container{State: schema.StateRunning, PID: 1}
	exited := schema.Container{State: schema.StateExited}
	check("first seen", see(running, 0), 0, -1)
	check("seen again", see(running, 5), 0, -1)
	check("exited", see(exited, 5), 0, 10)
	check("still exited", see(exited, 5), 0, 10)
	running.PID, running.Restarts, exited.Restarts = 2, 1, 1
	check("restarted", see(running, 5), 20, -1)
	check("exited again", see(exited, 5), 20, 25)
	running.PID = 3
	check("run by somebody else, not counted", see(running, 5), 30, -1)
	check("without a process", see(schema.Container{State: schema.StateCreated, Restarts: 1}, 5), -1, -1)
	running.PID = 2
	check("after the boot", see(running, 5), 40, -1)
	s.see(schema.Observed{}, at)
	if len(s) != 0 {
		t.Errorf("remembers what is gone: %v", s)
	}
	check("first seen dead", see(exited, 5), -1, 45)
}
