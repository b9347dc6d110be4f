package containerd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/containerd"
	"github.com/tidemark-edge/tidemark/internal/harness"
)

// What modules print, with real shims.
func TestModuleOutput(t *testing.T) {
	t.Parallel()
	for _, version := range harness.ContainerdVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			newWorld(t, version).play(t, []scenario{
				{"a module that prints fast is bounded and never blocks", floodIsBounded},
				{"a module prints on while no agent runs", noAgent},
				{"a module that closed its standard output is heard", halfSilent},
				{"a module prints on while the disk is full", printsOnAFullDisk},
				{"a module whose shim stopped writing is heard again", rescuedLog},
				{"a module starts when its log takes nothing", startsWithoutLog},
			}, nil)
		})
	}
}

// keepLogs does what an agent does, until the returned function is called.
func (s *stage) keepLogs() (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.KeepLogs(ctx) })
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	s.t.Cleanup(stop)
	return stop
}

// heard waits until the last line that a module printed is that.
func (s *stage) heard(module, line string) {
	s.t.Helper()
	harness.Eventually(s.t, func() error {
		if got := s.Tail(module, 1); got != line {
			return fmt.Errorf("%s last printed %.100q, want %q", module, got, line)
		}
		return nil
	})
}

// logOnDisk is what a module's log takes, in bytes.
func (s *stage) logOnDisk(module string) int64 {
	s.t.Helper()
	info, err := os.Stat(filepath.Join(containerd.LogDir(s.StateDir), module+".log"))
	if err != nil {
		s.t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// spam prints that many bytes, then "spammed".
func (s *stage) spam(module string, bytes int) {
	s.t.Helper()
	s.run(s.module(module, "spam", fmt.Sprint(bytes)))
}

func floodIsBounded(s *stage) {
	s.LogBytes = 1 << 20
	s.keepLogs()
	s.spam("loud", 50<<20)
	s.heard("loud", "spammed")
	harness.Eventually(s.t, func() error {
		if n := s.logOnDisk("loud"); n > s.LogBytes {
			return fmt.Errorf("%d bytes on the disk", n)
		}
		return nil
	})
	if got := s.Tail("loud", 2); got != strings.Repeat("x", 1023)+"\nspammed" {
		s.t.Errorf("%.100q", got)
	}
}

func noAgent(s *stage) {
	s.LogBytes = 1 << 20
	s.spam("loud", 20<<20)
	s.heard("loud", "spammed")
	s.open(s.StateDir) // the next agent
	s.LogBytes = 1 << 20
	s.keepLogs()
	harness.Eventually(s.t, func() error {
		if n := s.logOnDisk("loud"); n > s.LogBytes {
			return fmt.Errorf("%d bytes on the disk", n)
		}
		return nil
	})
	s.heard("loud", "spammed")
}

func halfSilent(s *stage) {
	s.run(s.module("half", "half"))
	s.heard("half", "still heard")
}

// small puts the state directory on a small filesystem.
func (s *stage) small() {
	s.t.Helper()
	dir, image := s.t.TempDir(), filepath.Join(s.t.TempDir(), "image")
	for _, args := range [][]string{
		{"truncate", "-s", "32M", image}, {"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			s.t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	s.t.Cleanup(func() {
		// A shim may have the log open for as long as it lives.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			s.t.Error(err)
		}
	})
	s.open(dir)
	s.LogBytes = 512 << 10
}

// fill takes all the room there is, to the last block, and returns a function
// that gives it back.
func (s *stage) fill() (empty func()) {
	s.t.Helper()
	name := filepath.Join(s.StateDir, "filling")
	f, err := os.Create(name)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for _, n := range []int{1 << 20, 4 << 10, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, n))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			s.t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			s.t.Fatal(err)
		}
	}
}

func printsOnAFullDisk(s *stage) {
	s.small()
	m := s.module("steady", "count", "200", "5") // 1 MB, twice the bound
	s.run(s.module("steady", "wait"))
	s.remove("steady")
	s.fill()
	s.keepLogs()
	s.run(m)
	// The keeper makes room ahead of the writing. Where this machine gives it no
	// turn for long, the next look takes over from the shim that stopped.
	harness.Eventually(s.t, func() error {
		s.find("steady")
		if got := s.Tail("steady", 1); got != "counted" {
			return fmt.Errorf("it last printed %.100q", got)
		}
		return nil
	})
}

// A burst on a full disk, with nobody there to make room.
func rescuedLog(s *stage) {
	s.small()
	s.run(s.module("loud", "count", "1000", "4"))
	empty := s.fill()
	harness.Eventually(s.t, func() error { // until nothing more comes
		before := s.logOnDisk("loud")
		time.Sleep(time.Second)
		if after := s.logOnDisk("loud"); after != before || s.Tail("loud", 1) == "" {
			return fmt.Errorf("it prints still: %d, then %d bytes", before, after)
		}
		return nil
	})
	if got := s.Tail("loud", 1); got == "counted" {
		s.t.Fatal("the disk never was too full for it")
	}
	empty()
	s.open(s.StateDir) // the next agent
	s.LogBytes = 1 << 20
	warned := make(chan error, 10)
	s.Warn = func(err error) { warned <- err }
	s.keepLogs()
	s.find("loud")
	s.heard("loud", "counted")
	if err := <-warned; !strings.Contains(err.Error(), "make room") {
		s.t.Error(err)
	}
	if s.Logs().Suspect("loud") {
		s.t.Error("it is suspect for ever")
	}
}

func startsWithoutLog(s *stage) {
	s.small()
	var warned error
	s.Warn = func(err error) { warned = err }
	s.run(s.module("late", "wait"))
	s.remove("late")
	if err := os.Remove(filepath.Join(containerd.LogDir(s.StateDir), "late.log")); err != nil {
		s.t.Fatal(err)
	}
	s.fill()
	m := s.module("late", "spam", fmt.Sprint(1<<20))
	if err := s.Start(s.ctx, m, "c0ffee", proof(s.t, m.Image)); err != nil {
		s.t.Fatal(err)
	}
	if warned == nil || !errors.Is(warned, syscall.ENOSPC) {
		s.t.Errorf("warned of %v", warned)
	}
	// It sleeps once it has printed all.
	harness.Eventually(s.t, func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.find("late").PID))
		if err == nil && !strings.Contains(string(b), "wchar: 10") {
			err = fmt.Errorf("it has not printed all: %s", b)
		}
		return err
	})
}
