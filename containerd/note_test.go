package containerd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/schema"
)

// fullDisk: a module that crashes runs again from what is on the disk, though
// there is not one free block on it, and its restarts are counted.
func fullDisk(s *stage) {
	disk := fault.NewDisk(s.t, "ext4", 64)
	s.onDisk(disk.Dir)
	c := s.run(s.module("sensor", "wait"))
	for n := 1; n <= 5; n++ {
		disk.Fill(0)
		syscall.Kill(s.find("sensor").PID, syscall.SIGKILL)
		s.await("sensor", schema.StateExited)
		if err := s.Restart(s.ctx, c.ID, n); err != nil {
			s.t.Fatalf("on a full disk, restart %d: %v", n, err)
		}
		if got := s.find("sensor"); got.State != schema.StateRunning || got.Restarts != n {
			s.t.Errorf("restart %d: %+v", n, got)
		}
	}
	disk.Fill(0)
	if err := s.Stop(s.ctx, c.ID, "liveness"); err != nil {
		s.t.Error(err)
	}
	if got := s.find("sensor"); got.Ended != "liveness" {
		s.t.Errorf("stopped: %+v", got)
	}
	disk.Free()
	if err := s.Restart(s.ctx, c.ID, 6); err != nil {
		s.t.Error(err)
	}
	s.open(s.StateDir)
	if got := s.find("sensor"); got.Restarts != 6 || got.Ended != "" {
		s.t.Errorf("with room again: %+v", got)
	}
}

// onDisk moves what the daemon and the agent keep to a disk of their own, until
// the test ends.
func (s *stage) onDisk(dir string) {
	s.t.Helper()
	file := filepath.Join(s.daemon.Dir, "config.toml")
	was, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	root := fmt.Sprintf("root = %q", filepath.Join(s.daemon.Dir, "root"))
	there := strings.Replace(string(was), root, fmt.Sprintf("root = %q", filepath.Join(dir, "root")), 1)
	restart := func(config string) {
		s.daemon.Kill()
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			s.t.Error(err)
		}
		s.daemon.Start()
	}
	restart(there)
	s.t.Cleanup(func() {
		s.clear()
		restart(string(was))
		s.Runtime = nil
		s.open(s.t.TempDir())
	})
	s.open(filepath.Join(dir, "state"))
}
