package containerd_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

func startAndObserve(s *stage) {
	m := s.module("sensor", "wait")
	before := time.Now().Add(-time.Second)
	got := s.run(m)
	if got.PID == 0 || got.StartedAt.Before(before) || got.StartedAt.After(time.Now().Add(time.Second)) {
		s.t.Errorf("pid %d, started %v (now %v)", got.PID, got.StartedAt, time.Now())
	}
	if want := "sensor " + itoa(got.PID); strings.Join(s.attached, ",") != want {
		s.t.Errorf("attached %q, want %q once", s.attached, want)
	}
	want := schema.Container{
		ID: "sensor." + m.Hash()[:8], Module: "sensor", Image: m.Image, Hash: m.Hash(), Commit: "c0ffee",
		State: schema.StateRunning, PID: got.PID, StartedAt: got.StartedAt,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Error(diff)
	}
	// Again changes nothing, and a second look says the same.
	if diff := cmp.Diff(want, s.run(m)); diff != "" {
		s.t.Errorf("the second Start: %s", diff)
	}
	if err := s.Remove(s.ctx, got.ID); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Remove(s.ctx, got.ID); err != nil {
		s.t.Errorf("the second Remove: %v", err)
	}
	if o, err := s.Observe(s.ctx); err != nil || len(o.Containers) != 0 {
		s.t.Errorf("after Remove: %+v, %v", o, err)
	}
}

func adoption(s *stage) {
	m := s.module("sensor", "wait")
	before := s.run(m)
	s.attached = nil
	s.open(s.StateDir)
	after := s.find("sensor")
	if diff := cmp.Diff(before, after); diff != "" {
		s.t.Errorf("after the agent was started again: %s", diff)
	}
	s.find("sensor")
	if want := "sensor " + itoa(before.PID); strings.Join(s.attached, ",") != want {
		s.t.Errorf("attached %q, want %q once", s.attached, want)
	}
	if err := s.Start(s.ctx, m, "another commit", proof(s.t, m.Image)); err != nil {
		s.t.Fatal(err)
	}
	if got := s.find("sensor"); got.PID != before.PID || got.Commit != "c0ffee" {
		s.t.Errorf("Start of what runs: %+v", got)
	}
}

func restart(s *stage) {
	first := s.run(s.module("sensor", "exit", "3"))
	ended := s.await("sensor", schema.StateExited)
	if ended.ExitCode != 3 || ended.PID != 0 || ended.OOMKilled || ended.ExitedAt.IsZero() {
		s.t.Errorf("ended: %+v", ended)
	}
	for n := 1; n <= 3; n++ {
		if err := s.Restart(s.ctx, first.ID, n); err != nil {
			s.t.Fatal(err)
		}
		again := s.await("sensor", schema.StateExited)
		if again.ID != first.ID || again.Restarts != n || !again.ExitedAt.After(ended.ExitedAt) || !again.StartedAt.After(ended.StartedAt) {
			s.t.Fatalf("restart %d: %+v after %+v", n, again, ended)
		}
		ended = again
	}
	s.open(s.StateDir)
	if got := s.find("sensor"); got.Restarts != 3 {
		s.t.Errorf("after the agent was started again: %d restarts", got.Restarts)
	}
	running := s.run(s.module("other", "wait"))
	if err := s.Restart(s.ctx, running.ID, 7); err != nil {
		s.t.Fatal(err)
	}
	if got := s.find("other"); got.PID != running.PID || got.Restarts != 0 {
		s.t.Errorf("Restart of what runs: %+v", got)
	}
}

func killed(s *stage) {
	c := s.run(s.module("sensor", "wait"))
	if err := syscall.Kill(c.PID, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	if got := s.await("sensor", schema.StateExited); got.ExitCode != 137 || got.OOMKilled {
		s.t.Errorf("killed by hand: %+v", got)
	}
}

func outOfMemory(s *stage) {
	m := s.module("sensor", "eat")
	m.Limits.Memory = 32 << 20
	id := s.run(m).ID
	for range 2 {
		got := s.await("sensor", schema.StateExited)
		if got.ExitCode != 137 || !got.OOMKilled {
			s.t.Errorf("out of memory: %+v", got)
		}
		s.open(s.StateDir)
		if !s.find("sensor").OOMKilled {
			s.t.Error("forgotten when the agent was started again")
		}
		if err := s.Restart(s.ctx, id, 1); err != nil {
			s.t.Fatal(err)
		}
	}
}

func foreign(s *stage) {
	ours := s.run(s.module("sensor", "wait"))
	s.ctr("run", "-d", "--runc-binary", s.daemon.Runc, "--label", "tidemark.io/module=sensor", "--label", "tidemark.io/hash="+ours.Hash,
		string(s.image), "byhand", "/main", "wait")
	observed, err := s.Observe(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	var found schema.Container
	for _, c := range observed.Containers {
		if c.ID == "byhand" {
			found = c
		}
	}
	if found.Module != "" || found.Hash != "" || found.State != schema.StateRunning || found.PID == 0 || len(observed.Containers) != 2 {
		s.t.Fatalf("%+v among %+v", found, observed.Containers)
	}
	harness.Eventually(s.t, func() error { // as the first process it is deaf until it handles signals
		b, err := os.ReadFile("/proc/" + itoa(found.PID) + "/status")
		if err == nil && strings.Contains(string(b), "SigCgt:\t0000000000000000") {
			err = fmt.Errorf("it does not listen")
		}
		return err
	})
	if err := s.Remove(s.ctx, "byhand"); err != nil {
		s.t.Fatal(err)
	}
	if observed, err = s.Observe(s.ctx); err != nil || len(observed.Containers) != 1 {
		s.t.Errorf("after Remove: %+v, %v", observed, err)
	}
	if _, err := os.Stat("/proc/" + itoa(found.PID)); err == nil {
		s.t.Error("its process is still there")
	}
}

func stubborn(s *stage) {
	m := s.module("sensor", "stubborn")
	m.Stop.Timeout = schema.Duration(300 * time.Millisecond)
	c := s.run(m)
	s.output("sensor", "ignoring")
	began := time.Now()
	if err := s.Remove(s.ctx, c.ID); err != nil {
		s.t.Fatal(err)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		s.t.Errorf("killed after %v", took)
	}
	if _, err := os.Stat("/proc/" + itoa(c.PID)); err == nil {
		s.t.Error("its process is still there")
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
