package fault

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

// Agent builds the tidemark that can be interrupted at its failpoints and whose
// wall clock is a Clock, and returns its path.
func Agent(t testing.TB) string {
	t.Helper()
	return build(t, "tidemark", func() []string {
		return []string{"-tags", "failpoint", "-overlay", clockOverlay(t), "./cmd/tidemark"}
	})
}

// program builds one of the programs below this folder.
func program(t testing.TB, name string) string {
	t.Helper()
	return build(t, name, func() []string { return []string{"./internal/fault/" + name} })
}

// built are the binaries that this process has built: to ask go build whether one is
// fresh takes a second.
var (
	building sync.Mutex
	built    = map[string]bool{}
)

// build runs go build with these arguments, unless what it makes is there and fresh,
// which go build knows. The binaries are kept in build/fault, for the next test.
func build(t testing.TB, name string, arguments func() []string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	dir := filepath.Join(harness.Root(), "build", "fault")
	if built[name] {
		return filepath.Join(dir, name)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock := lock(t, filepath.Join(dir, name+".lock"))
	defer unlock()
	binary := filepath.Join(dir, name)
	cmd := exec.Command("go", append([]string{"build", "-p", "2", "-trimpath", "-ldflags=-s -w", "-o", binary}, arguments()...)...)
	cmd.Dir, cmd.Env = harness.Root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	built[name] = true
	return binary
}

// lock keeps other processes from making the same thing at the same time.
func lock(t testing.TB, path string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}

// clockOverlay makes what go build -overlay reads to give a program a clock that
// a test can set: package time with another Now.
func clockOverlay(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(harness.Root(), "build", "fault", "overlay")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock := lock(t, filepath.Join(dir, "lock"))
	defer unlock()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	original, err := os.ReadFile(filepath.Join(source, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const real = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(original), real) != 1 {
		t.Fatalf("%s/time.go: Now does not begin as it did in Go 1.26: look at what changed, and at clockOverlay", source)
	}
	changed := strings.Replace(string(original), real, real+"\tsec += testOffset()\n", 1)
	added, err := os.ReadFile(filepath.Join(harness.Root(), "internal", "fault", "testdata", "offset.go.txt"))
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{
		filepath.Join(source, "time.go"):       write(t, filepath.Join(dir, "time.go.txt"), []byte(changed)),
		filepath.Join(source, "testoffset.go"): write(t, filepath.Join(dir, "testoffset.go.txt"), added),
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Join(dir, "overlay.json"), overlay)
}

// write writes a file and returns its path.
func write(t testing.TB, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
