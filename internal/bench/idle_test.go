//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

const (
	idleModules = 50
	idleFor     = 40 * time.Second
	settleFor   = 25 * time.Second // for the agent to have given back what starting needed
)

// measureIdle takes what an agent with 50 modules and a hub costs while nothing
// happens: without probes, and then with a probe of each module each ten seconds.
func measureIdle(t *testing.T, f *table) {
	r := newRig(t)
	image := r.image("module")
	r.declare(many(idleModules, image))
	r.startHub()
	r.startAgent()
	r.settle()
	cpu, switches := r.idle()
	memory := memoryOf(t, r.agent.PID())
	f.add("idle_cpu_50_percent", cpu, "%", "of a core, over %v: agent with leaf, hub link and %d modules without probes; %.1f context switches a second", idleFor, idleModules, switches)
	f.add("idle_rss_50_mib", memory["VmRSS"], "MiB", "the same agent; %.1f of it the binary's own pages; %.1f at its highest, while all modules were started", memory["RssFile"], memory["VmHWM"])

	r.declare(probed(idleModules, image))
	if err := reconcile(r.dial()); err != nil {
		t.Fatal(err)
	}
	r.settle()
	cpu, switches = r.idle()
	memory = memoryOf(t, r.agent.PID())
	f.add("idle_cpu_50_probed_percent", cpu, "%", "the same, each module with a liveness probe by TCP each 10 s; %.1f context switches a second", switches)
	f.add("idle_rss_50_probed_mib", memory["VmRSS"], "MiB", "the same with probes")
}

// probed are n modules that listen and are asked whether they do.
func probed(n int, image schema.Image) map[string]string {
	modules := map[string]string{}
	for i := range n {
		modules[fmt.Sprintf("m%03d", i)] = fmt.Sprintf("image: %q, args: [\"listen\"], health: liveness: {tcp: port: 8080, interval: \"10s\"}", image)
	}
	return modules
}

// settle waits until the newest commit is last-good and nobody looks any more.
func (r *rig) settle() {
	conn := r.dial()
	r.healthy(conn)
	conn.Close()
	time.Sleep(settleFor)
}

// idle is what the agent takes of a core, in percent, and how often a thread of
// it gives up its processor, a second.
func (r *rig) idle() (cpu, switches float64) {
	pid := r.agent.PID()
	spent, switched := cpuOf(r.t, pid), switchesOf(pid)
	time.Sleep(idleFor)
	spent, switched = cpuOf(r.t, pid)-spent, switchesOf(pid)-switched
	return spent.Seconds() / idleFor.Seconds() * 100, float64(switched) / idleFor.Seconds()
}

var contextSwitches = regexp.MustCompile(`(?m)^\w*voluntary_ctxt_switches:\s+(\d+)$`)

// switchesOf counts the context switches of a process's threads.
func switchesOf(pid int) (sum int64) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, file := range files {
		content, _ := os.ReadFile(file) // of a thread that has ended there is nothing to add
		for _, m := range contextSwitches.FindAllSubmatch(content, -1) {
			n, _ := strconv.ParseInt(string(m[1]), 10, 64)
			sum += n
		}
	}
	return sum
}
