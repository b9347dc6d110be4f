// Package harness starts the real parts that tests run against: registries,
// containerd daemons of every supported line, the cosign and cue command lines.
// Everything is private to the test and ends with it; the machine's own daemons
// are never touched. Only tests and examples import it.
package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Tool returns the absolute path of a tool, which tools/get makes available
// where it is not yet. See tools/get --list for the names.
func Tool(t testing.TB, name string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(Root(), "tools", "get"), name)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tools/get %s: %v\n%s", name, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// Root is the folder of this source tree.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// patience is longer than any healthy machine needs. For one that is not real,
// TIDEMARK_PATIENCE says another duration.
func patience() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("TIDEMARK_PATIENCE")); err == nil {
		return d
	}
	return 60 * time.Second
}

// Eventually calls ok until it returns nil, and fails the test with its last
// error when that takes longer than a deadline that no healthy machine needs.
func Eventually(t testing.TB, ok func() error) {
	t.Helper()
	patience := patience()
	deadline := time.Now().Add(patience)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v still: %v", patience, err)
		}
		time.Sleep(wait)
	}
}

// shortDir is a temporary directory with a path short enough for Unix sockets,
// which hold 107 bytes.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return dir
}
