package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// Labels that the agent gives containers; what they are called is part of what
// survives an update of the agent.
const (
	labelModule = "tidemark.io/module"
	labelHash   = "tidemark.io/hash"
	labelChain  = "tidemark.io/chain"
)

// Bounds on what an agent may grow by, from its first census on: what it does from
// time to time, such as to ask the fleet repository, takes some for a moment.
const (
	slackFDs        = 6
	slackThreads    = 24
	slackGoroutines = 16
)

// Bounds on what an agent may have open of what goes up and down by itself.
const (
	mostRegistry = 4  // connections; signatures are asked for over up to two, which end after 30 s
	mostPacks    = 34 // 17, and as many that were compacted, until Go collects them
)

// Settle waits until the device has made up its mind about the newest commit, and
// runs what it says it does. It returns the last report; the error says what is
// still amiss when patience ends.
func (d *Device) Settle(patience time.Duration) (schema.Report, error) {
	d.t.Helper()
	head := d.head
	deadline := time.Now().Add(patience)
	kicked := time.Now()
	for {
		report, err := d.Status()
		if err == nil {
			if err = d.settled(report, head); err == nil {
				return report, nil
			}
		}
		if time.Now().After(deadline) {
			return report, fmt.Errorf("after %v still: %w", patience, err)
		}
		if time.Since(kicked) > time.Second {
			d.Kick()
			kicked = time.Now()
		}
		time.Sleep(15 * time.Millisecond)
	}
}

// settled says what keeps the device from being settled.
func (d *Device) settled(r schema.Report, head string) error {
	refused := r.Refused != nil && r.Refused.Revision.Commit == head
	switch {
	case !refused && (r.Phase != schema.PhaseHealthy || r.Revision.Commit != head):
		return fmt.Errorf("phase %s at %s, not %s; %+v; %s", r.Phase, r.Revision.Short(), head[:12], r.LastDesiredStatus, modules(r))
	case refused && r.Refused.Phase == schema.PhaseStaging:
		return fmt.Errorf("no room: %s", r.Refused.Reason) // it is tried again
	case refused && r.Phase != schema.PhaseHealthy && r.Phase != schema.PhaseRolledBack && r.Phase != schema.PhaseWaiting:
		return fmt.Errorf("refused, and in phase %s at %s; %s", r.Phase, r.Revision.Short(), modules(r))
	}
	for name, m := range r.Modules {
		if m.RuntimeStatus != schema.RuntimeRunning && !d.rests(r, name) {
			return fmt.Errorf("module %s is %s: %s", name, m.RuntimeStatus, m.StatusDescription)
		}
	}
	return nil
}

// rests reports whether a module waits for its next start, because it ends by itself
// on purpose.
func (d *Device) rests(r schema.Report, module string) bool {
	return r.Modules[module].RuntimeStatus == schema.RuntimeBackoff && d.commits[r.Revision.Commit].crashes[module]
}

// modules is the state of each in one line.
func modules(r schema.Report) string {
	var all []string
	for name, m := range r.Modules {
		all = append(all, strings.TrimSpace(name+" "+m.RuntimeStatus+" "+m.StatusDescription))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// Invariants fails the test for each promise that the device, which has settled,
// does not keep.
func (d *Device) Invariants(t testing.TB) {
	t.Helper()
	for _, violation := range d.Violations() {
		t.Errorf("invariant: %s", violation)
	}
}

// Violations are the promises that the device does not keep. What only takes its
// time, such as the end of a process, is waited for.
func (d *Device) Violations() []string {
	d.t.Helper()
	// What could not be deleted while containerd was away is deleted after the
	// first back-off, of 10 s.
	const patience = 30 * time.Second
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		found := d.look()
		if len(found) == 0 || time.Now().After(deadline) {
			return found
		}
	}
}

// look says what is amiss now.
func (d *Device) look() (found []string) {
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for _, p := range []Part{AgentPart, ContainerdPart} {
		if how := d.Machine.end(d.pids[p]); how != "" {
			say("%s ended by itself: %s: %s", p, how, tail(d.Log(p), 2000))
			return found
		}
	}
	report, err := d.Status()
	if err != nil {
		say("the agent does not answer: %v", err)
		return found
	}
	h, err := d.held()
	if err != nil {
		say("%v", err)
		return found
	}
	d.lookAtContainers(say, report, h)
	d.lookAtImages(say, report, h)
	d.lookAtProcesses(say, report, h)
	d.lookAtReport(say, report)
	d.lookForLeaks(say)
	return found
}

// lookAtContainers: what runs is what the reported revision says, all of it, and
// nothing else: no mix, no duplicate.
func (d *Device) lookAtContainers(say func(string, ...any), report schema.Report, h holdings) {
	if report.Revision.IsZero() && len(d.Damaged) > 0 {
		return // what was to run is lost, and nothing that may run has come: all is left as it is
	}
	want := d.commits[report.Revision.Commit]
	seen := map[string]int{}
	for _, c := range h.containers {
		module := c.Labels[labelModule]
		seen[module]++
		switch {
		case want.hashes[module] == "":
			say("container %s is of no module of revision %s", c.ID, report.Revision.Short())
		case want.hashes[module] != c.Labels[labelHash]:
			say("phase %s at revision %s, but container %s is of another definition", report.Phase, report.Revision.Short(), c.ID)
		case c.Image != string(want.images[module]):
			say("container %s is made from %s, not %s", c.ID, c.Image, want.images[module])
		case !h.running[c.ID] && !d.rests(report, module):
			say("container %s does not run", c.ID)
		}
	}
	for module := range want.hashes {
		if seen[module] != 1 {
			say("module %s has %d containers", module, seen[module])
		}
		if r, ok := report.Modules[module]; !ok || r.RuntimeStatus != schema.RuntimeRunning && !d.rests(report, module) {
			say("module %s is reported as %q", module, r.RuntimeStatus)
		}
	}
}

// lookAtImages: what nobody signed is not there; what no revision needs goes; no
// snapshot and no lease is left of anything.
func (d *Device) lookAtImages(say func(string, ...any), report schema.Report, h holdings) {
	chains := map[string]bool{}
	for _, image := range h.images {
		chains[image.Labels[labelChain]] = true
		if image.Name == string(d.World.Unsigned) {
			say("the image that nobody signed is in containerd")
		}
		if !d.needs(report, image.Name) {
			say("image %s is needed by nothing, and there", image.Name)
		}
	}
	owned := map[string]bool{}
	for _, c := range h.containers {
		owned[c.SnapshotKey] = true
		chains[c.Labels[labelChain]] = true
	}
	for _, name := range h.active {
		if !owned[name] {
			say("snapshot %s is of no container", name)
		}
	}
	for chain := range chains { // an image holds its layers' snapshots, each the parent of the next
		for name := chain; name != ""; {
			parent := h.committed[name]
			delete(h.committed, name)
			name = parent
		}
	}
	for name := range h.committed {
		say("snapshot %s is of no image", name)
	}
	for _, lease := range h.leases {
		say("lease %s %v is left", lease.ID, lease.Labels)
	}
}

// needs reports whether an image is one of the revision that runs, of last-good, or
// of the newest commit.
func (d *Device) needs(report schema.Report, image string) bool {
	for _, revision := range []string{report.Revision.Commit, report.LastGood.Commit, d.head} {
		for _, needed := range d.commits[revision].images {
			if string(needed) == image {
				return true
			}
		}
	}
	return false
}

// lookAtProcesses: each container that runs has one process, and there is no other.
// A shim stays until the end of its module has been dealt with.
func (d *Device) lookAtProcesses(say func(string, ...any), report schema.Report, h holdings) {
	count := map[string]int{}
	for _, p := range d.processes(isModule) {
		count[filepath.Base(p.cgroup)]++
	}
	for id := range h.running {
		if count[id] != 1 {
			say("container %s has %d processes", id, count[id])
		}
		delete(count, id)
	}
	for id, n := range count {
		say("%d processes of container %q, which does not run", n, id)
	}
	resting := 0
	for module := range report.Modules {
		if d.rests(report, module) {
			resting++
		}
	}
	if shims := len(d.processes(isShim)); shims < len(h.running) || shims > len(h.running)+resting {
		say("%d shims for %d containers that run and %d that rest", shims, len(h.running), resting)
	}
}

// lookAtReport: a commit that is not run has a reason, and no state file was torn.
func (d *Device) lookAtReport(say func(string, ...any), report schema.Report) {
	head := d.head
	if report.Revision.Commit != head && (report.Refused == nil || report.Refused.Reason == "") {
		say("%s runs in place of %s, and no reason is reported", report.Revision.Short(), head[:12])
	}
	if report.Phase == schema.PhaseHealthy && report.LastGood.Commit != report.Revision.Commit {
		say("phase %s, and last-good is %s, not %s", report.Phase, report.LastGood.Short(), report.Revision.Short())
	}
	for _, file := range Files(d.t, d.StateDir) {
		original, _, aside := strings.Cut(file, ".broken-")
		if aside && !slices.ContainsFunc(d.Damaged, func(path string) bool { return strings.HasPrefix(path, original) }) {
			say("%s was set aside, and nobody damaged it", file)
		}
	}
	log, _ := os.ReadFile(d.Log(AgentPart))
	if i := strings.Index(string(log), "panic: "); i >= 0 {
		say("the agent panicked: %.4000s", log[i:])
	}
}

// lookForLeaks compares with the first census that there was of this device.
func (d *Device) lookForLeaks(say func(string, ...any)) {
	now, err := d.Census()
	if err != nil {
		say("census: %v", err)
		return
	}
	modules := now.Containers
	if d.baseline == nil {
		d.baseline, d.modules = &now, modules
		return
	}
	base := *d.baseline
	for _, c := range []struct {
		what      string
		now, most int
	}{
		{"mounts", now.Mounts, base.Mounts + (modules-d.modules)*(base.Mounts/max(1, d.modules)+1)},
		{"cgroups", now.Cgroups, base.Cgroups + (modules-d.modules)*(base.Cgroups/max(1, d.modules)+1)},
		{"network namespaces", now.Networks, base.Networks + modules - d.modules},
		{"descriptors of the agent", now.FDs, base.FDs + slackFDs},
		{"packs that the agent has open", now.Packs, mostPacks},
		{"connections of the agent to the registry", now.Registry, mostRegistry},
		{"threads of the agent", now.Threads, base.Threads + slackThreads},
		{"goroutines of the agent", now.Goroutines, base.Goroutines + slackGoroutines},
	} {
		if c.now > c.most {
			say("%d %s, at most %d after the first census %+v; now %+v", c.now, c.what, c.most, base, now)
		}
	}
}
