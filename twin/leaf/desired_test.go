package leaf

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
	"github.com/tidemark-edge/tidemark/twin/leaf/ledger"
)

// signals keeps what modules were signalled, and refuses while it is told to.
type signals struct {
	mu     sync.Mutex
	sent   []string
	refuse atomic.Bool
}

func (s *site) signals() *signals {
	got := &signals{}
	s.config.Signal = func(_ context.Context, module, signal string) error {
		if got.refuse.Load() {
			return errors.New("containerd is away")
		}
		got.mu.Lock()
		defer got.mu.Unlock()
		got.sent = append(got.sent, module+" "+signal)
		return nil
	}
	return got
}

func (g *signals) all() []string { g.mu.Lock(); defer g.mu.Unlock(); return slices.Clone(g.sent) }

// fileSays reads desired.json as a module does.
func (s *site) fileSays(module string) twin.Section {
	s.t.Helper()
	data, err := os.ReadFile(s.desiredFile(module))
	var section twin.Section
	if err == nil {
		err = json.Unmarshal(data, &section)
	}
	if err != nil {
		s.t.Fatalf("%v: %s", err, data)
	}
	return section
}

// A module finds desired before its first start, also after a reboot, owned by
// the user that it runs as, and nobody else may read it.
func TestDesiredFileIsThereBeforeTheModuleStarts(t *testing.T) {
	s := newSite(t)
	l := s.open()
	check := func() {
		t.Helper()
		dir, _, err := l.Identity(t.Context(), "sensor", 1234, 5678)
		if err != nil {
			t.Fatal(err)
		}
		var file unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, "desired.json"), &file); err != nil {
			t.Fatal(err)
		}
		if file.Uid != 1234 || file.Gid != 5678 || file.Mode&0o7777 != 0o400 {
			t.Errorf("it is of %d:%d, mode %o", file.Uid, file.Gid, file.Mode&0o7777)
		}
		if got := s.fileSays("sensor"); got.Version != 1 || got.Values["interval"] != 5.0 || got.Source != "c0ffee" {
			t.Errorf("it says %+v", got)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 2 {
			t.Errorf("the directory has %v, %v", entries, err)
		}
	}
	if _, _, err := l.Identity(t.Context(), "sensor", 1, 1); err != nil { // before anything is declared
		t.Fatal(err)
	}
	if err := l.Declare(t.Context(), declared("sensor")); err != nil {
		t.Fatal(err)
	}
	if got := s.fileSays("sensor"); got.Version != 1 {
		t.Errorf("declared after its directory was made: %+v", got)
	}
	check()
	l.Close()
	if err := os.RemoveAll(s.config.RunDir); err != nil { // as a reboot does
		t.Fatal(err)
	}
	l = s.open()
	check()
}

// Whenever a module looks, it finds a whole file, and none that is older than the
// one before.
func TestDesiredFileIsReplacedWhole(t *testing.T) {
	s := newSite(t)
	l := s.open()
	d := declared("sensor")
	s.declare(l, d)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			for last := uint64(0); ctx.Err() == nil; {
				data, err := os.ReadFile(s.desiredFile("sensor"))
				var got twin.Section
				if err != nil || json.Unmarshal(data, &got) != nil || got.Version < last {
					t.Errorf("after version %d: %v, %s", last, err, data)
					return
				}
				last = got.Version
			}
		})
	}
	for i := range 60 {
		d.Modules[0].Twin.Desired = map[string]any{"i": i, "text": strings.Repeat("x", i*400)}
		if err := l.Declare(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if got := s.fileSays("sensor"); got.Values["i"] != float64(i) {
			t.Fatalf("declared %d, the file says %v", i, got.Values["i"])
		}
	}
	cancel()
	wait.Wait()
	if dirs, err := os.ReadDir(filepath.Join(s.config.RunDir, identity.ModulesDir)); err != nil || len(dirs) != 1 {
		t.Errorf("left over: %v, %v", dirs, err)
	}
}

// The signal follows the file: not for the first one, not where none is declared,
// and not when nothing changed.
func TestModuleIsSignalledWhenItsFileChanged(t *testing.T) {
	t.Parallel() // it waits
	s := newSite(t)
	got := s.signals()
	l := s.open()
	d := declared("quiet", "sensor")
	d.Modules[1].Twin.Signal = "SIGHUP"
	s.declare(l, d)
	s.declare(l, d)
	change := func(i int) {
		t.Helper()
		for m := range d.Modules {
			d.Modules[m].Twin.Desired = map[string]any{"interval": i}
		}
		s.declare(l, d)
	}
	change(6)
	eventually(t, "the signal", func() bool { return len(got.all()) > 0 })
	if _, err := l.Override(t.Context(), "sensor", by("ann", map[string]any{"x": 1}), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the signal of the override", func() bool { return len(got.all()) > 1 })
	eventually(t, "nothing is left to do", func() bool {
		marks, _ := os.ReadDir(filepath.Join(s.config.RunDir, signalsDir))
		return len(marks) == 0
	})
	if want := []string{"sensor SIGHUP", "sensor SIGHUP"}; !slices.Equal(got.all(), want) {
		t.Errorf("sent %q, want %q", got.all(), want)
	}

	// What does not go is tried again, also by the next agent.
	got.refuse.Store(true)
	change(7)
	eventually(t, "a person is told", func() bool { return strings.Contains(s.warned(), "signal module sensor: containerd is away") })
	l.Close()
	got.refuse.Store(false)
	l = s.open()
	eventually(t, "the signal that was left", func() bool { return len(got.all()) == 3 })
	got.refuse.Store(true)
	change(8)
	got.refuse.Store(false)
	eventually(t, "the signal after a while", func() bool { return len(got.all()) == 4 })

	// A module that goes takes its signal with it.
	got.refuse.Store(true)
	change(9)
	s.declare(l, declared("quiet"))
	eventually(t, "nothing is left to do", func() bool {
		marks, _ := os.ReadDir(filepath.Join(s.config.RunDir, signalsDir))
		return len(marks) == 0
	})
	if strings.Count(s.warned(), "containerd is away") > 4 {
		t.Errorf("a person is told over and over: %s", s.warned())
	}
}

// An agent that was killed between the commit and the file, or the file and the
// signal, does what is left when it starts.
func TestDesiredFileIsMendedAtStart(t *testing.T) {
	s := newSite(t)
	got := s.signals()
	l := s.open()
	d := declared("sensor")
	d.Modules[0].Twin.Signal = "SIGHUP"
	s.declare(l, d)
	l.Close()
	twins, err := ledger.Open(filepath.Join(s.config.StateDir, "twins"), "d1", func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	d.Modules[0].Twin.Desired = map[string]any{"interval": 6}
	if _, _, err := twins.Declare(d, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := twins.Close(); err != nil {
		t.Fatal(err)
	}
	l = s.open()
	if now := s.fileSays("sensor"); now.Version != 2 || now.Values["interval"] != 6.0 {
		t.Errorf("%+v", now)
	}
	eventually(t, "the signal", func() bool { return len(got.all()) == 1 })
	l.Close()
	if err := errors.Join(os.Remove(s.desiredFile("sensor")), os.Symlink("/etc/passwd", s.desiredFile("sensor"))); err != nil {
		t.Fatal(err)
	}
	s.open()
	if now := s.fileSays("sensor"); now.Version != 2 {
		t.Errorf("%+v", now)
	}
}

// Files of modules cannot take the room that seeds need.
func TestDesiredFilesLeaveRoomForSeeds(t *testing.T) {
	s := newSite(t)
	s.config.RunDir = harness.SmallDisk(t, "2m")
	if err := os.Chmod(s.config.RunDir, 0o755); err != nil {
		t.Fatal(err)
	}
	l := s.open()
	filler := filepath.Join(s.config.RunDir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s.declare(l, declared("sensor"))
	s.declare(l, declared("sensor"))
	conn := s.module(l, "sensor")
	if got := get(t, conn, "sensor"); got.Properties.Desired.Version != 1 {
		t.Errorf("%+v", got)
	}
	if _, err := os.Lstat(s.desiredFile("sensor")); err == nil {
		t.Error("there was no room for the file")
	}
	if n := strings.Count(s.warned(), "write desired.json of module sensor"); n != 1 {
		t.Errorf("a person is told %d times: %s", n, s.warned())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file, with room", func() bool { _, err := os.Lstat(s.desiredFile("sensor")); return err == nil })
	if got := s.fileSays("sensor"); got.Version != 1 {
		t.Errorf("%+v", got)
	}
}
