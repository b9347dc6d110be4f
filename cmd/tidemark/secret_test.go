package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoCoreHoldsSeeds looks at a process that keeps secrets, and at one that it
// starts.
func TestNoCoreHoldsSeeds(t *testing.T) {
	if os.Getenv("TIDEMARK_TEST_SECRETS") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestNoCoreHoldsSeeds$", "-test.v")
		cmd.Env = append(os.Environ(), "TIDEMARK_TEST_SECRETS=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dumpable := func() int {
		n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if dumpable() == 0 {
		t.Fatal("cannot be dumped before it was forbidden: this shows nothing")
	}
	if err := keepSecrets(); err != nil {
		t.Fatal(err)
	}
	if dumpable() != 0 {
		t.Error("can be dumped")
	}
	limits, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok && strings.Join(strings.Fields(rest)[:2], " ") != "0 0" {
			t.Errorf("core dumps are bounded by %s", strings.TrimSpace(rest))
		}
	}
	if out, err := exec.Command(os.Args[0], "-test.list=^TestNoCoreHoldsSeeds$").CombinedOutput(); err != nil {
		t.Errorf("it cannot start a process any more: %v\n%s", err, out)
	}
}
