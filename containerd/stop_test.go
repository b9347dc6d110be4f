package containerd_test

import (
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// Stop keeps the container and says why, also to an agent that is started
// later; Restart forgets it.
func stopKeeps(s *stage) {
	c := s.run(s.module("sensor", "wait"))
	s.output("sensor", "waiting")
	if err := s.Stop(s.ctx, c.ID, "liveness: status 503"); err != nil {
		s.t.Fatal(err)
	}
	ended := s.find("sensor")
	if ended.ID != c.ID || ended.State != schema.StateExited || ended.Ended != "liveness: status 503" || ended.ExitCode != 0 || ended.ExitedAt.IsZero() || ended.PID != 0 {
		s.t.Fatalf("stopped: %+v", ended)
	}
	if err := s.Stop(s.ctx, c.ID, "another reason"); err != nil {
		s.t.Error(err)
	}
	s.open(s.StateDir)
	if again := s.find("sensor"); again != ended {
		s.t.Errorf("after the second Stop, and another start of the agent: %+v, want %+v", again, ended)
	}
	if err := s.Restart(s.ctx, c.ID, 1); err != nil {
		s.t.Fatal(err)
	}
	if got := s.find("sensor"); got.State != schema.StateRunning || got.Ended != "" || got.Restarts != 1 {
		s.t.Errorf("restarted: %+v", got)
	}
	syscall.Kill(s.find("sensor").PID, syscall.SIGKILL)
	if got := s.await("sensor", schema.StateExited); got.Ended != "" || got.ExitCode != 137 {
		s.t.Errorf("killed by somebody: %+v", got)
	}
	if err := s.Stop(s.ctx, c.ID, "too late"); err != nil {
		s.t.Error(err)
	}
	if got := s.find("sensor"); got.Ended != "" {
		s.t.Errorf("Stop of what had ended by itself: %+v", got)
	}
	if err := s.Stop(s.ctx, "nobody", "none"); err != nil {
		s.t.Errorf("stop of what is not there: %v", err)
	}
}

// A reason of any length and content is kept as far as a label can.
func stopReason(s *stage) {
	m := s.module("sensor", "stubborn")
	m.Stop.Timeout = schema.Duration(300 * time.Millisecond)
	c := s.run(m)
	s.output("sensor", "ignoring")
	began := time.Now()
	if err := s.Stop(s.ctx, c.ID, "\xff"+strings.Repeat("ä", 5000)); err != nil {
		s.t.Fatal(err)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		s.t.Errorf("killed after %v", took)
	}
	got := s.find("sensor")
	if got.ExitCode != 137 || got.OOMKilled || !strings.HasPrefix(got.Ended, "�äää") || !strings.HasSuffix(got.Ended, "ä…") || len(got.Ended) > 1024 {
		s.t.Errorf("%+v", got)
	}
	if _, err := os.Stat("/proc/" + itoa(c.PID)); err == nil {
		s.t.Error("its process is still there")
	}
	if err := s.Restart(s.ctx, c.ID, 1); err != nil {
		s.t.Fatal(err)
	}
	s.ctr("task", "pause", c.ID)
	if err := s.Stop(s.ctx, c.ID, ""); err != nil {
		s.t.Fatal(err)
	}
	if got := s.find("sensor"); got.State != schema.StateExited || got.Ended == "" {
		s.t.Errorf("stopped while frozen, for no reason: %+v", got)
	}
}
