package containerd_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// After a power cut containerd's database was damaged, and the device was lost
// until somebody came (containerd#4838, #9929).
func TestContainerd4838DamagedDatabaseIsSetAside(t *testing.T) {
	t.Parallel()
	registry := harness.Registry(t)
	damages := map[string]struct {
		do    func(db []byte) []byte
		comes bool // the daemon comes up all the same, and serves nothing
	}{
		"cut to 5 pages": {do: func(db []byte) []byte { return db[:5*4096] }},
		"cut to a page":  {do: func(db []byte) []byte { return db[:4096] }, comes: true},
		"zeroed":         {do: func(db []byte) []byte { clear(db); return db }, comes: true},
		"pages zeroed":   {do: func(db []byte) []byte { clear(db[2*4096:]); return db }},
		"pages of noise": {do: flipPages},
	}
	for _, version := range harness.ContainerdVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := &world{daemon: harness.Containerd(t, version), registry: registry}
			s := w.stage(t)
			b := s.pushBulk("damaged", 1<<20, 110, 111)
			for name, damage := range damages {
				s.pull(b.Image)
				s.daemon.Kill()
				s.config.Root = "" // not ours to touch
				s.open(s.StateDir)
				db := s.database()
				whole, err := os.ReadFile(db)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(db, damage.do(whole), 0o600); err != nil {
					t.Fatal(err)
				}
				if damage.comes {
					s.daemon.Start()
				}
				if err := s.Daemon().Salvage(s.ctx); err != nil {
					t.Errorf("%s, where containerd is another's: %v", name, err)
				}
				s.config.Root = filepath.Join(s.daemon.Dir, "root")
				s.open(s.StateDir)
				if err := s.Daemon().Salvage(s.ctx); err == nil || !strings.Contains(err.Error(), "set aside in") {
					t.Fatalf("%s: %v", name, err)
				}
				if damage.comes {
					s.gone()
				}
				s.daemon.Start() // as systemd does
				s.answers()
				if err := s.Daemon().Salvage(s.ctx); err != nil {
					t.Errorf("%s, with all well: %v", name, err)
				}
				s.pull(b.Image)
				s.whole(b)
			}
			if broken, _ := filepath.Glob(filepath.Join(s.config.Root, "tidemark.broken-*")); len(broken) != 2 {
				t.Errorf("kept %q", broken)
			}
			s.daemon.Kill()
			before, _ := os.ReadDir(s.config.Root)
			if err := s.Daemon().Salvage(s.ctx); err != nil {
				t.Errorf("a database that is whole: %v", err)
			}
			if after, _ := os.ReadDir(s.config.Root); len(after) != len(before) {
				t.Error("a root that is whole was touched")
			}
			// containerd takes an empty file for a new one, and the snapshots that it
			// forgot are in the way until they are collected.
			os.Truncate(s.database(), 0)
			s.daemon.Start()
			s.answers()
			s.pull(b.Image)
			s.whole(b)
		})
	}
}

// What runs is not ended by mending.
func TestDamagedDatabaseWaitsForModules(t *testing.T) {
	t.Parallel()
	for _, version := range harness.ContainerdVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newWorld(t, version).stage(t)
			s.config.Root = filepath.Join(s.daemon.Dir, "root")
			s.open(s.StateDir)
			m := s.module("sensor", "wait")
			c := s.run(m)
			s.daemon.Kill()
			if err := os.Truncate(s.database(), 100<<10); err != nil {
				t.Fatal(err)
			}
			if err := s.Daemon().Salvage(s.ctx); err == nil || !strings.Contains(err.Error(), "still run") {
				t.Errorf("with a module that runs: %v", err)
			}
			if err := syscall.Kill(c.PID, 0); err != nil {
				t.Errorf("the module: %v", err)
			}
			parent := shim(s, c.PID)
			syscall.Kill(parent, syscall.SIGKILL)
			syscall.Kill(c.PID, syscall.SIGKILL)
			harness.Eventually(t, func() error {
				err := s.Daemon().Salvage(s.ctx)
				if err != nil && strings.Contains(err.Error(), "set aside in") {
					return nil
				}
				return errors.Join(errors.New("not set aside"), err)
			})
			s.daemon.Start()
			s.answers()
			if got := s.run(m); got.State != schema.StateRunning {
				t.Errorf("%+v", got)
			}
		})
	}
}

// flipPages spoils the head of every page but the roots.
func flipPages(db []byte) []byte {
	for at := 2 * 4096; at < len(db); at += 4096 {
		for i := range 16 {
			db[at+i] ^= 0x55
		}
	}
	return db
}

// database is the file of containerd's that is damaged.
func (s *stage) database() string {
	return filepath.Join(s.daemon.Dir, "root", "io.containerd.metadata.v1.bolt", "meta.db")
}

// gone waits until the daemon has ended.
func (s *stage) gone() {
	s.t.Helper()
	harness.Eventually(s.t, func() error {
		conn, err := net.Dial("unix", s.daemon.Address)
		if err != nil {
			return nil
		}
		conn.Close()
		return errors.New("the daemon is still there")
	})
}
