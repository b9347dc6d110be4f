package containerd_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// The contract holds where control groups are of version 2 only, which is shown
// here wherever the tests run: what it needs of them needs no controller, and so
// works beside version 1. What needs controllers is shown by make test-unified.
func TestContractOnControlGroupsOfVersion2(t *testing.T) {
	t.Parallel()
	const enter = `mount -t cgroup2 cgroup2 /sys/fs/cgroup; stat -f -c "version 2 is %T" /sys/fs/cgroup; exec "$0" "$@"`
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-ec", enter,
		os.Args[0], "-test.run=^TestContract$", "-test.v")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, want := range []string{
		"version 2 is cgroup2fs\n", "--- PASS: TestContract/1.6/what_was_paused_goes_on", "--- PASS: TestContract/2/what_was_paused_goes_on",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in its output:\n%s", want, out)
		}
	}
}

// On a machine that had no container yet, and no systemd, version 2 shows nowhere
// that it accounts for swap: its first module could evade its memory limit by being
// swapped out. make test-unified runs this before all others.
func TestTheFirstMemoryLimitOfAMachineCoversSwap(t *testing.T) {
	t.Parallel()
	s := newWorld(t, harness.ContainerdVersions[0]).stage(t)
	m := s.module("sensor", "wait")
	m.Limits = schema.Limits{Memory: 64 << 20}
	c := s.run(m)
	if got := s.cgroupFile(c.ID, "memory", "memory.limit_in_bytes", "memory.max"); got != "67108864" {
		t.Errorf("the memory limit is %s", got)
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		if got := s.cgroupFile(c.ID, "memory", "", "memory.swap.max"); got != "0" {
			t.Errorf("of swap it may have %s", got)
		}
	}
}
