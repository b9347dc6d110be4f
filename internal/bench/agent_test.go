//go:build bench

package bench

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

const killed = syscall.SIGKILL

var emptyConfig v1.Config

// measureAgent takes what an agent with ten modules and a hub costs, and how
// long the next one needs to have taken all of them over.
func measureAgent(t *testing.T, f *table) {
	const n = 10
	r := newRig(t)
	r.declare(many(n, r.image("module")))
	r.startHub()
	r.startAgent()
	conn := r.dial()
	r.healthy(conn)
	time.Sleep(20 * time.Second) // for the garbage of starting to be gone
	memory := memoryOf(t, r.agent.PID())
	idle := cpuOf(t, r.agent.PID())
	time.Sleep(20 * time.Second)
	idle = cpuOf(t, r.agent.PID()) - idle
	f.add("agent_idle_rss_mib", memory["VmRSS"], "MiB", "leaf, hub link and %d modules, idle; %.1f of it the binary's own pages", n, memory["RssFile"])
	f.add("agent_idle_anon_mib", memory["RssAnon"], "MiB", "of that, what is not the binary's pages")
	f.add("agent_peak_rss_mib", memory["VmHWM"], "MiB", "the same agent's highest, first start and deployment included")
	f.add("agent_idle_cpu_percent", idle.Seconds()/20*100, "%", "of a core, over 20 s")

	pids := pidsOf(t, conn)
	var all []float64
	for range 10 {
		r.agent.Stop(killed)
		began := time.Now()
		r.startAgent()
		conn := r.dial()
		harness.Eventually(t, func() error { return adopted(report(conn)) })
		all = append(all, ms(time.Since(began)))
		if now := pidsOf(t, conn); now != pids {
			t.Fatalf("modules were restarted: %s, before %s", now, pids)
		}
		conn.Close()
	}
	f.add("adopt_10_ms", percentile(all, 50), "ms", "agent killed and started: until it reports all %d modules as running, the same processes; median of 10", n)
}

// adopted is nil when all ten modules are reported as running.
func adopted(got schema.Report, err error) error {
	if err != nil {
		return err
	}
	running := 0
	for _, m := range got.Modules {
		if m.RuntimeStatus == schema.RuntimeRunning {
			running++
		}
	}
	if running != 10 {
		return fmt.Errorf("%d modules run", running)
	}
	return nil
}

// pidsOf lists the modules' processes.
func pidsOf(t *testing.T, conn *nats.Conn) string {
	got, err := report(conn)
	if err != nil {
		t.Fatal(err)
	}
	pids := ""
	for _, name := range slices.Sorted(maps.Keys(got.Modules)) {
		pids += fmt.Sprintf("%s %d; ", name, got.Modules[name].PID)
	}
	return pids
}

// memoryOf is a process's memory, in MiB, by its name in /proc/PID/status.
func memoryOf(t *testing.T, pid int) map[string]float64 {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	memory := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+):\s+(\d+) kB$`).FindAllSubmatch(content, -1) {
		kib, _ := strconv.ParseFloat(string(m[2]), 64)
		memory[string(m[1])] = kib / 1024
	}
	return memory
}

// cpuOf is the processor time that a process has used.
func cpuOf(t *testing.T, pid int) time.Duration {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var ticks [2]int64
	fields := regexp.MustCompile(`\) .*`).FindString(string(content))
	var state string
	var skip [10]int64
	fmt.Sscan(fields[2:], &state, &skip[0], &skip[1], &skip[2], &skip[3], &skip[4], &skip[5], &skip[6], &skip[7], &skip[8], &skip[9], &ticks[0], &ticks[1])
	return time.Duration(ticks[0]+ticks[1]) * 10 * time.Millisecond // USER_HZ is 100
}
