package containerd_test

import (
	"strings"
	"syscall"

	"github.com/tidemark-edge/tidemark/schema"
)

// Signal reaches the process of a module, a frozen one when it goes on, and
// nobody else; where nothing runs there is nothing to do.
func signalled(s *stage) {
	c := s.run(s.module("sensor", "hear"))
	deaf := s.run(s.module("deaf", "wait")) // which a SIGHUP would end
	s.output("sensor", "listening")
	s.output("deaf", "waiting")
	send := func(module, signal string) {
		s.t.Helper()
		if err := s.Signal(s.ctx, module, signal); err != nil {
			s.t.Error(err)
		}
	}
	send("sensor", "SIGHUP")
	s.heard("sensor", "heard")
	s.ctr("task", "pause", c.ID)
	send("sensor", "SIGHUP")
	s.ctr("task", "resume", c.ID)
	s.output("sensor", "heard\nheard")
	send("nobody", "SIGHUP")
	if err := s.Signal(s.ctx, "sensor", "HUP; rm -rf /"); err == nil || !strings.Contains(err.Error(), "want one as in") {
		s.t.Errorf("a signal that is none: %v", err)
	}
	if got := s.find("deaf"); got.State != schema.StateRunning || got.PID != deaf.PID {
		s.t.Errorf("another module was signalled: %+v", got)
	}
	syscall.Kill(s.find("sensor").PID, syscall.SIGKILL)
	s.await("sensor", schema.StateExited)
	send("sensor", "SIGHUP")
	if err := s.Remove(s.ctx, c.ID); err != nil {
		s.t.Fatal(err)
	}
	send("sensor", "SIGHUP")
}
