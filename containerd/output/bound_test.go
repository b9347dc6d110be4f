package output

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// greengrass-nucleus#1649: logs filled the disk.
func TestLogsAreBounded(t *testing.T) {
	onEach(t, func(t *testing.T, kind filesystem, dir string) {
		files := &Files{Dir: dir, Max: testMax}
		m := start(t, files, "m")
		for range 40 * testMax / (16 << 10) {
			m.print(16 << 10)
			files.look("m")
			if n := onDisk(t, logPath(dir, "m")); n > testMax+(16<<10) {
				t.Fatalf("%d bytes on the disk", n)
			}
		}
		m.print(100)
		size, next := kept(t, dir, "m")
		if next != m.next || size > testMax || kind.holes && size < testMax/3 {
			t.Errorf("%d bytes up to line %d of %d", size, next, m.next)
		}
		if info, err := os.Stat(logPath(dir, "m")); err != nil || info.Mode().Perm() != 0o600 || kind.collapse && info.Size() > (longHole+1)*testMax {
			t.Errorf("%v %v", info, err)
		}
		if info, err := os.Stat(marksPath(dir, "m")); err != nil || info.Size() > maxLedger {
			t.Errorf("%v %v", info, err)
		}
	})
}

// The bound must not depend on how often somebody looks at containers.
func TestALogThatGrowsFastIsBoundedWhileItGrows(t *testing.T) {
	dir := mount(t, "ext4") // of 64 MB
	files := &Files{Dir: dir, Max: testMax}
	m := start(t, files, "m")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { files.Run(ctx) })
	for range 200 { // MB
		m.print(1 << 20)
		time.Sleep(5 * time.Millisecond)
	}
	eventually(t, func() error {
		if n := onDisk(t, logPath(dir, "m")); n > testMax {
			return fmt.Errorf("%d bytes on the disk", n)
		}
		return nil
	})
	stop()
	wg.Wait()
	if _, next := kept(t, dir, "m"); next != m.next {
		t.Errorf("line %d of %d", next, m.next)
	}
}

// A shim that cannot write stops reading, and its module blocks for ever.
func TestAFullDiskDoesNotEndALog(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := mount(t, kind)
			files := &Files{Dir: dir, Max: testMax}
			m := start(t, files, "m")
			m.print(100)
			fill(t, filepath.Dir(dir))
			if _, err := files.Begin("other"); err == nil {
				t.Error("a log was promised that would take nothing")
			}
			for range 25 * testMax / (16 << 10) {
				m.print(16 << 10)
				files.look("m")
			}
			if size, next := kept(t, dir, "m"); next != m.next || size < testMax/keepLeast/2 {
				t.Errorf("%d bytes up to line %d of %d", size, next, m.next)
			}
			// Nor does it keep a module from being started again.
			m2 := start(t, &Files{Dir: dir, Max: testMax}, "m")
			m2.next = m.next
			m2.print(10 << 10)
			kept(t, dir, "m")
		})
	}
}

func TestARestartedKeeperCutsAtOnce(t *testing.T) {
	dir := t.TempDir()
	m := start(t, &Files{Dir: dir, Max: testMax}, "m")
	m.print(8 * testMax) // no agent
	keeper(t, dir)
	eventually(t, func() error {
		if size, next := kept(t, dir, "m"); size > testMax || next != m.next {
			return fmt.Errorf("%d bytes up to line %d of %d", size, next, m.next)
		}
		return nil
	})
}

func TestAKeeperMayBeKilledAtAnyMoment(t *testing.T) {
	for _, kind := range []string{"ext4", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := mount(t, kind)
			m := start(t, &Files{Dir: dir, Max: testMax}, "m")
			for range 15 {
				k := keeper(t, dir)
				until := time.Now().Add(time.Duration(rand.IntN(int(60 * time.Millisecond))))
				for time.Now().Before(until) {
					m.print(256 << 10)
					time.Sleep(time.Millisecond)
				}
				k.Process.Kill()
				k.Wait()
				if _, next := kept(t, dir, "m"); next != m.next {
					t.Fatalf("line %d of %d", next, m.next)
				}
			}
			keeper(t, dir)
			eventually(t, func() error {
				if size, _ := kept(t, dir, "m"); size > testMax {
					return fmt.Errorf("%d bytes", size)
				}
				return nil
			})
			left, _ := filepath.Glob(filepath.Join(dir, marksDir, ".new-*"))
			if len(left) > 1 { // one may be of the keeper that runs
				t.Errorf("left %v", left)
			}
		})
	}
}

// TestACutThatWasCutOff leaves a log as a keeper does that is killed right
// after it cut a hole out.
func TestACutThatWasCutOff(t *testing.T) {
	dir := mount(t, "ext4")
	files := &Files{Dir: dir, Max: testMax}
	m := start(t, files, "m")
	m.print(64 << 10)
	files.look("m")
	l, err := Open(dir, "m")
	must(t, err)
	defer l.Close()
	one := files.file("m")
	one.ledger.cutting = 32 << 10
	must(t, one.saveHeader())
	f, err := os.OpenFile(one.path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, 32<<10))
	for range 2 { // before there is another keeper, and after
		start, end, err := l.Span()
		if err != nil || start != 32<<10 || end < 64<<10 || end > 64<<10+100 {
			t.Errorf("from %d to %d: %v", start, end, err)
		}
		(&Files{Dir: dir, Max: testMax}).look("m")
	}
}

func TestAFollowerSeesEveryLineOnce(t *testing.T) {
	onEach(t, func(t *testing.T, kind filesystem, dir string) {
		files := &Files{Dir: dir, Max: testMax}
		m := start(t, files, "m")
		l, err := Open(dir, "m")
		must(t, err)
		defer l.Close()
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		wg.Go(func() { // a keeper in a hurry
			for ctx.Err() == nil {
				files.look("m")
				time.Sleep(time.Millisecond)
			}
		})
		seen := &counter{t: t}
		var position int64
		follow := func() {
			next, lost, err := l.Copy(seen, position)
			// Where there are no holes, all that is there is lost in a cut.
			if err != nil || lost > 0 && kind.holes {
				t.Fatalf("at %d: %v, lost %d", position, err, lost)
			}
			if lost > 0 {
				seen.next, seen.rest = -1, nil
			}
			position = next
		}
		rounds := 25 * testMax / (8 << 10)
		if !kind.holes {
			rounds = 20
		}
		for range rounds {
			m.print(8 << 10)
			follow()
		}
		follow()
		if seen.next != m.next {
			t.Errorf("saw up to line %d of %d", seen.next, m.next)
		}
		if info, err := l.file.Stat(); err != nil || kind.collapse && info.Size() >= position {
			t.Errorf("no hole was cut out: %v %v", info, err)
		}
	})
}

func TestFollowGoesOn(t *testing.T) {
	dir := t.TempDir()
	files := &Files{Dir: dir, Max: testMax}
	m := start(t, files, "m")
	m.print(1000)
	l, err := Open(dir, "m")
	must(t, err)
	defer l.Close()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var shown text
	wg.Go(func() {
		if err := l.Follow(ctx, &shown, 0, nil); err != nil {
			t.Error(err)
		}
	})
	await := func(what string) {
		t.Helper()
		eventually(t, func() error {
			if s := shown.String(); strings.Count(s, what) != 1 {
				return fmt.Errorf("%d bytes, with %q not once", len(s), what)
			}
			return nil
		})
	}
	await(fmt.Sprintf("line %d of", m.next-1))
	m = start(t, files, "m") // a restart
	fmt.Fprintln(m.file, "after the restart")
	await("after the restart")
	must(t, os.Truncate(logPath(dir, "m"), 0)) // by a person
	fmt.Fprintln(m.file, "after the truncation")
	files.look("m")
	await("after the truncation")
	must(t, os.Remove(logPath(dir, "m")))
	m = start(t, files, "m")
	fmt.Fprintln(m.file, "after the removal")
	files.look("m")
	await("after the removal")
}

// text is a buffer that may be read while it is written.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (t *text) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(b)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// TestQuietModulesWakeNobody counts how often a keeper of 50 logs runs.
func TestQuietModulesWakeNobody(t *testing.T) {
	dir := t.TempDir()
	files := &Files{Dir: dir, Max: testMax}
	var modules []*module
	for i := range 50 {
		modules = append(modules, start(t, files, fmt.Sprintf("m%d", i)))
	}
	k := keeper(t, dir)
	for _, m := range modules {
		m.print(100)
	}
	eventually(t, func() error { // it has seen them, and a while passes without
		for i := range modules {
			if l, _ := readLedger(marksPath(dir, fmt.Sprintf("m%d", i))); l.end() < 100 {
				return errors.New("it does not look")
			}
		}
		before := wakeups(t, k.Process.Pid)
		time.Sleep(2 * time.Second)
		if n := wakeups(t, k.Process.Pid) - before; n > 0 {
			return fmt.Errorf("woken %d times in 2 s", n)
		}
		return nil
	})
}

// wakeups is how often the threads of a process went to sleep.
func wakeups(t *testing.T, pid int) (n int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	must(t, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		must(t, err)
		for line := range strings.Lines(string(b)) {
			var v int
			if _, err := fmt.Sscanf(line, "voluntary_ctxt_switches: %d", &v); err == nil {
				n += v
			}
		}
	}
	if n == 0 {
		t.Fatal("it never ran")
	}
	return n
}

func TestAWatchThatIsLostIsMadeAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	var warned atomic.Int32
	files := &Files{Dir: dir, Max: testMax, Warn: func(error) { warned.Add(1) }}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { files.Run(ctx) })
	first := start(t, files, "m")
	eventually(t, func() error { // until it watches
		first.print(10)
		if l, _ := readLedger(marksPath(dir, "m")); l.end() == 0 {
			return errors.New("it does not look")
		}
		return nil
	})
	must(t, os.RemoveAll(dir))
	eventually(t, func() error {
		if warned.Load() == 0 {
			return errors.New("not noticed")
		}
		return nil
	})
	m := start(t, files, "m")
	m.print(2 * testMax)
	eventually(t, func() error {
		if size, _ := kept(t, dir, "m"); size > testMax {
			return fmt.Errorf("%d bytes", size)
		}
		return nil
	})
}

func TestLogsOfModulesThatAreGone(t *testing.T) {
	dir := t.TempDir()
	old := &Files{Dir: dir, Max: testMax}
	for i := range 20 {
		name := fmt.Sprintf("m%d", i)
		start(t, old, name).print(10)
		at := time.Unix(int64(1000+i), 0)
		must(t, os.Chtimes(logPath(dir, name), at, at))
	}
	files := &Files{Dir: dir, Max: testMax}
	start(t, files, "m1")
	at := time.Unix(0, 0) // a clock that was never set
	must(t, os.Chtimes(logPath(dir, "m1"), at, at))
	must(t, files.Prune([]string{"m0"}))
	all, err := List(dir)
	must(t, err)
	var names []string
	for _, info := range all {
		names = append(names, info.Module)
	}
	if got := strings.Join(names, " "); got != "m19 m18 m17 m16 m15 m14 m13 m12 m0 m1" {
		t.Error(got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, marksDir, "m*")); len(left) != 10 {
		t.Error(left)
	}
}

func TestWhatIsNoLogIsRefused(t *testing.T) {
	dir := t.TempDir()
	files := &Files{Dir: dir}
	for _, name := range []string{"", "..", "../m", "a/b", ".new-1", "M*"} {
		if _, err := files.Begin(name); err == nil {
			t.Errorf("began %q", name)
		}
		if _, err := Open(dir, name); err == nil {
			t.Errorf("opened %q", name)
		}
	}
	must(t, os.Symlink("/etc/hostname", logPath(dir, "link")))
	must(t, unix.Mkfifo(logPath(dir, "pipe"), 0o600))
	for _, name := range []string{"link", "pipe"} {
		if _, err := files.Begin(name); err == nil {
			t.Errorf("began %q", name)
		}
		if _, err := Open(dir, name); err == nil {
			t.Errorf("opened %q", name)
		}
	}
	if _, err := Open(dir, "none"); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
}
