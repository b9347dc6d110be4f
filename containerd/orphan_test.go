package containerd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// forgetful makes a runc that cannot delete while the file it returns exists:
// on a machine under load containerd gives up deleting after 5 s.
func (s *stage) forgetful() (file string) {
	s.t.Helper()
	dir := s.t.TempDir()
	file = filepath.Join(dir, "busy")
	script := fmt.Sprintf("#!/bin/sh\nif [ -e %s ]; then case \" $* \" in *' delete '*) exit 1;; esac; fi\nexec %s \"$@\"\n", file, s.daemon.Runc)
	s.config.Runc = filepath.Join(dir, "runc")
	if err := os.WriteFile(s.config.Runc, []byte(script), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.open(s.StateDir)
	return file
}

// A shim that dies may leave its module behind, with nobody to know of it. The
// module does not run twice for that.
func noDuplicateContainer(s *stage) {
	busy := s.forgetful()
	m := s.module("sensor", "wait")
	p := proof(s.t, m.Image)
	for name, next := range map[string]func(c schema.Container) error{
		"restart": func(c schema.Container) error { return s.Restart(s.ctx, c.ID, 1) },
		"start":   func(c schema.Container) error { return s.Start(s.ctx, m, "c", p) },
		"remove":  func(c schema.Container) error { return s.Remove(s.ctx, c.ID) },
	} {
		os.Truncate(filepath.Join(s.StateDir, "logs", "sensor.log"), 0)
		c := s.run(m)
		s.output("sensor", "waiting") // it would end if it printed where no shim listens any more
		os.WriteFile(busy, nil, 0o600)
		syscall.Kill(shim(s, c.PID), syscall.SIGKILL)
		harness.Eventually(s.t, func() error {
			if got := s.find("sensor"); got.State == schema.StateRunning {
				return fmt.Errorf("still %+v", got)
			}
			return nil
		})
		if !alive(c.PID) {
			s.t.Fatalf("%s: no orphan", name)
		}
		os.Remove(busy)
		if err := next(c); err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
		if alive(c.PID) {
			s.t.Errorf("%s: the former process still runs", name)
		}
		if name != "remove" {
			if got := s.find("sensor"); got.State != schema.StateRunning || got.PID == c.PID {
				s.t.Errorf("%s: %+v", name, got)
			}
			s.remove("sensor")
		}
	}
}

// alive reports whether a process runs; one that nobody has reaped yet does
// not.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + itoa(pid) + "/status")
	return err == nil && !strings.Contains(string(b), "State:\tZ")
}

// What containerd leaves when it is killed while it deletes a task keeps it from
// ever making another one for the same container, until the next boot.
func debris(s *stage) {
	m := s.module("sensor", "wait")
	c := s.run(m)
	hidden := filepath.Join(s.daemon.Dir, "state", "io.containerd.runtime.v2.task", s.config.Namespace, "."+c.ID)
	for _, again := range []func() error{
		func() error { return s.Restart(s.ctx, c.ID, 1) },
		func() error { return s.Start(s.ctx, m, "c", proof(s.t, m.Image)) },
	} {
		if err := os.MkdirAll(filepath.Join(hidden, "rootfs"), 0o700); err != nil {
			s.t.Fatal(err)
		}
		syscall.Kill(s.find("sensor").PID, syscall.SIGKILL)
		s.await("sensor", schema.StateExited)
		if err := again(); err != nil {
			s.t.Error(err)
		}
		if got := s.find("sensor"); got.State != schema.StateRunning {
			s.t.Errorf("%+v", got)
		}
		if _, err := os.Stat(hidden); err == nil {
			s.t.Error("the debris is still there")
		}
	}
	s.remove("sensor")
}
