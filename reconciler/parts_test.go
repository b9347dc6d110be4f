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
	check("ended without a trace", see(schema.Container{State: schema.StateCreated, Restarts: 1}, 5), 30, 35)
	check("still without", see(schema.Container{State: schema.StateCreated, Restarts: 1}, 5), 30, 35)
	running.PID = 2
	check("run again", see(running, 0), 40, -1)
	check("paused", see(schema.Container{State: schema.StatePaused, PID: 2, Restarts: 1}, 5), -1, -1)
	check("goes on", see(running, 5), 50, -1)
	s.see(schema.Observed{}, at)
	if len(s) != 0 {
		t.Errorf("remembers what is gone: %v", s)
	}
	check("first seen dead", see(exited, 5), -1, 55)
	s.see(schema.Observed{}, at)
	check("first seen without a process", see(schema.Container{State: schema.StateCreated}, 5), -1, -1)
}

// Two exits that no run was seen between are two, though a count that began anew
// is the same for both.
func TestSightsTellExitsApart(t *testing.T) {
	at := time.Now()
	s := sights{}
	see := func(exit int64) time.Time {
		at = at.Add(time.Second)
		c := schema.Container{ID: "a", State: schema.StateExited, Restarts: 1, ExitedAt: time.Unix(exit, 0)}
		return s.see(schema.Observed{Containers: []schema.Container{c}}, at).Containers[0].ExitedAt
	}
	first := see(10)
	if again := see(10); !again.Equal(first) {
		t.Errorf("one exit was seen at %v and at %v", first, again)
	}
	if next := see(5); !next.Equal(at) { // the wall clock went back
		t.Errorf("the second exit was seen at %v, want %v", next, at)
	}
}

// What was before a target is not held against a module.
func TestSightsForgive(t *testing.T) {
	at := time.Now()
	s := sights{}
	see := func(c schema.Container) schema.Container {
		at = at.Add(time.Second)
		c.ID = "a"
		return s.see(schema.Observed{Containers: []schema.Container{c}}, at).Containers[0]
	}
	see(schema.Container{State: schema.StateExited, Restarts: 9})
	s.forgive()
	if c := see(schema.Container{State: schema.StateExited, Restarts: 9}); c.Restarts != 0 || !c.ExitedAt.IsZero() {
		t.Errorf("forgiven, and seen as %+v", c)
	}
	if c := see(schema.Container{State: schema.StateRunning, PID: 1, Restarts: 1}); c.Restarts != 1 {
		t.Errorf("restarted, and seen as %+v", c)
	}
	if c := see(schema.Container{State: schema.StateExited, Restarts: 1}); c.Restarts != 1 || !c.ExitedAt.Equal(at) {
		t.Errorf("ended again, and seen as %+v", c)
	}
}
