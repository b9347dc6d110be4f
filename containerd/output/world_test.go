package output

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain makes this test binary a keeper of its own, for tests that kill it.
func TestMain(m *testing.M) {
	if dir := os.Getenv("OUTPUT_TEST_KEEP"); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		(&Files{Dir: dir, Max: testMax}).Run(ctx)
		return
	}
	os.Exit(m.Run())
}

const testMax = 256 << 10

// keeper starts a process that does what an agent does about logs.
func keeper(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "OUTPUT_TEST_KEEP="+dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// filesystem is one that logs may be on.
type filesystem struct {
	name     string
	holes    bool // it can drop the begin of a log and keep the rest
	collapse bool // it can make the file shorter by that
}

var filesystems = []filesystem{
	{"ext4", true, true},
	{"xfs", true, true},
	{"tmpfs", true, false},
	{"ramfs", false, false},
}

// onEach runs a test with a directory on each kind of filesystem.
func onEach(t *testing.T, test func(t *testing.T, kind filesystem, dir string)) {
	for _, kind := range filesystems {
		t.Run(kind.name, func(t *testing.T) {
			test(t, kind, mount(t, kind.name))
		})
	}
}

// mount makes a small filesystem, and returns a directory on it.
func mount(t testing.TB, kind string) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-t", kind, "-o", "size=64m", "none", dir}
	switch kind {
	case "ramfs":
		args = []string{"-t", kind, "none", dir}
	case "ext4", "xfs":
		image := filepath.Join(t.TempDir(), "image")
		size := int64(64 << 20)
		if kind == "xfs" { // mkfs.xfs makes none smaller than 300 MB
			size = 320 << 20
		}
		must(t, os.WriteFile(image, nil, 0o600))
		must(t, os.Truncate(image, size))
		shell(t, "mkfs."+kind, "-q", image)
		args = []string{"-t", kind, "-o", "loop", image, dir}
	}
	shell(t, "mount", args...)
	t.Cleanup(func() { shell(t, "umount", dir) })
	return filepath.Join(dir, "logs")
}

func shell(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// module is what a shim does: it appends, and knows nothing of bounds.
type module struct {
	t    testing.TB
	file *os.File
	next int
}

func start(t testing.TB, files *Files, name string) *module {
	t.Helper()
	path, err := files.Begin(name)
	must(t, err)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return &module{t: t, file: f}
}

// print prints lines that are counted, of n bytes together or a little more.
func (m *module) print(n int) {
	m.t.Helper()
	for n > 0 {
		var b bytes.Buffer
		for b.Len() < 4000 && b.Len() < n {
			fmt.Fprintf(&b, "line %d of what the module prints\n", m.next)
			m.next++
		}
		if _, err := m.file.Write(b.Bytes()); err != nil {
			m.t.Fatalf("line %d: %v", m.next, err)
		}
		n -= b.Len()
	}
}

// counter checks that the lines written to it are counted without a gap.
type counter struct {
	t    testing.TB
	next int // expected; -1 is any
	rest []byte
}

func (c *counter) Write(b []byte) (int, error) {
	c.rest = append(c.rest, b...)
	for {
		i := bytes.IndexByte(c.rest, '\n')
		if i < 0 {
			return len(b), nil
		}
		line := string(c.rest[:i])
		c.rest = c.rest[i+1:]
		var n int
		if _, err := fmt.Sscanf(line, "line %d of what the module prints", &n); err != nil {
			return 0, fmt.Errorf("%.80q is no line: %w", line, err)
		}
		if c.next >= 0 && n != c.next {
			return 0, fmt.Errorf("line %d, want %d", n, c.next)
		}
		c.next = n + 1
	}
}

// kept reads all that is in a log, checks that no line is missing in it, and
// returns its size and the number of the line after the last.
func kept(t testing.TB, dir, name string) (size int64, next int) {
	t.Helper()
	l, err := Open(dir, name)
	must(t, err)
	defer l.Close()
	from, err := l.Start()
	must(t, err)
	c := &counter{t: t, next: -1}
	to, lost, err := l.Copy(c, from)
	if lost > 0 { // cut while we read
		return kept(t, dir, name)
	}
	if err != nil || len(c.rest) > 0 {
		t.Fatalf("%v; left %.80q", err, c.rest)
	}
	return to - from, c.next
}

// onDisk is what a file takes, allocated room included.
func onDisk(t testing.TB, path string) int64 {
	t.Helper()
	var stat unix.Stat_t
	must(t, unix.Stat(path, &stat))
	return stat.Blocks * 512
}

// fill takes all the room on the filesystem of dir, to the last block.
func fill(t testing.TB, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filling"))
	must(t, err)
	defer f.Close()
	for _, n := range []int{1 << 20, 4 << 10, 512, 1} {
		for block := make([]byte, n); err == nil; {
			_, err = f.Write(block)
		}
		err = nil
	}
	must(t, f.Sync())
}

// eventually waits for what comes when the machine gets round to it.
func eventually(t testing.TB, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
