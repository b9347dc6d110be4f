//go:build unified

package unified

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness/unified/order"
)

var (
	accelerator = flag.String("accelerator", "tcg", "what QEMU runs the machine with: kvm where the hardware can")
	only        = flag.String("only", "", "regular expression of the runtime's tests to run; by default the contract and all scenarios")
)

// The runtime keeps what it promises on a kernel that has control groups of
// version 2 only.
func TestUnified(t *testing.T) {
	m := Machine{Accelerator: *accelerator, Processors: 2, MemoryMB: 3 << 10, DiskMB: 12 << 10}
	flags := []string{"-test.v", "-test.timeout=3h", "-test.parallel=2"}
	tests := []Tests{
		{Package: "containerd", Args: append(flags, "-test.run=^TestTheFirstMemoryLimitOfAMachineCoversSwap$")},
		{Package: "containerd/cgroup", Args: flags},
		{Package: "containerd", Args: append(flags, "-test.run=^(TestContract|TestContainerd)$")},
	}
	if *only != "" {
		tests = []Tests{{Package: "containerd", Args: append(flags, "-test.run="+*only)}}
	}
	out := m.Run(t, os.Stdout, tests...)
	if !regexp.MustCompile(`(?m)^` + order.World + `.* has .*\bcpu\b.*\bmemory\b.*\bpids\b`).MatchString(out) {
		t.Error("version 2 did not have the controllers that limits need")
	}
	if n := strings.Count(out, "\nPASS\n"); n != len(tests) {
		t.Errorf("%d of %d test programs have passed", n, len(tests))
	}
}
