package fault

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

// Clock is the wall clock of programs that were built for it: the machine's, and
// an offset, which changes in all of them at once. What measures time by the
// monotonic clock does not notice, as on a real device. containerd 1.6, runc and
// the kernel (files' times) keep the machine's time.
type Clock struct {
	path string // what TIDEMARK_TEST_CLOCK names
	page []byte
}

// newClock makes a clock that shows the machine's time.
func newClock(t testing.TB, path string) *Clock {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err == nil {
		defer f.Close()
		err = f.Truncate(8)
	}
	if err != nil {
		t.Fatal(err)
	}
	page, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	return &Clock{path: path, page: page}
}

// Set makes the clock wrong by offset, of which whole seconds count.
func (c *Clock) Set(offset time.Duration) {
	binary.NativeEndian.PutUint64(c.page, uint64(int64(offset/time.Second)))
}

// SetTo makes the clock show at, now.
func (c *Clock) SetTo(at time.Time) { c.Set(time.Until(at)) }

// containerdVersion is what the clocked containerd is built from; tools/get builds
// the other one from the same.
const containerdVersion = "v2.4.2"

// clockedContainerd builds containerd 2 and its shim for a Clock, once for this
// machine, since it takes minutes, and returns the path of containerd.
func clockedContainerd(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(filepath.Dir(harness.Tool(t, "containerd-2"))), "clocked-containerd@"+containerdVersion)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock := lock(t, filepath.Join(dir, "lock"))
	defer unlock()
	if _, err := os.Stat(filepath.Join(dir, "containerd")); err != nil {
		const module = "github.com/containerd/containerd/v2/cmd/"
		cmd := exec.Command("go", "install", "-p", "2", "-overlay", clockOverlay(t), "-trimpath", "-ldflags=-s -w",
			module+"containerd-shim-runc-v2@"+containerdVersion, module+"containerd@"+containerdVersion)
		cmd.Dir, cmd.Env = "/", append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOBIN="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build containerd: %v\n%s", err, out)
		}
	}
	return filepath.Join(dir, "containerd")
}
