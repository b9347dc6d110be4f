//go:build soak

package fault_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/internal/harness"
)

var (
	rounds     = flag.Int("rounds", 40, "of all devices together")
	seed       = flag.Uint64("seed", 0, "of what is random; 0 takes one from the clock")
	filesystem = flag.String("fs", "", "filesystems, separated by commas; all without it")
	lines      = flag.String("containerd", "", "lines of containerd, separated by commas; all without it")
	faults     = flag.String("faults", "", "only faults that match this regular expression")
	out        = flag.String("out", "build/soak.json", "where this run is noted, below the source tree")
	messages   = flag.Bool("messages", true, "modules send messages to a hub, which are accounted for after each round")
	within     = flag.Duration("within", 0, "after which no round begins; 0 is never")
	changes    = flag.Bool("changes", true, "most rounds declare something; without it a device runs its first definition only, and a round is shorter")
	patience   = flag.Duration("patience", 90*time.Second, "in which a device has to settle after a fault")
)

// lifetime is after how many rounds a device is replaced by a new one, so that what
// only happens to a fresh one is met too.
const lifetime = 250

// TestSoak breaks devices, again and again, and checks after each time that they
// keep what is promised.
func TestSoak(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) % 1_000_000_007
	}
	wanted, err := regexp.Compile(*faults)
	if err != nil {
		t.Fatalf("FAULTS: %v", err)
	}
	kinds := slices.DeleteFunc(slices.Clone(allFaults), func(k kind) bool { return !wanted.MatchString(k.name) })
	if len(kinds) == 0 {
		t.Fatalf("FAULTS=%s matches none of the faults", *faults)
	}
	result := newTally(*seed)
	if *within > 0 {
		result.until = time.Now().Add(*within)
	}
	path := *out
	if !filepath.IsAbs(path) {
		path = filepath.Join(harness.Root(), path)
	}
	defer result.publish(t, path)
	world := fault.NewWorld(t)
	combinations := [][2]string{}
	for _, line := range splitList(*lines, harness.ContainerdVersions) {
		for _, fs := range splitList(*filesystem, fault.Filesystems) {
			combinations = append(combinations, [2]string{line, fs})
		}
	}
	t.Run("devices", func(t *testing.T) { // its end waits for all of them
		for i, c := range combinations {
			n := (*rounds + i) / len(combinations)
			t.Run("containerd-"+c[0]+"/"+c[1], func(t *testing.T) {
				t.Parallel()
				for life := 0; n > 0 && !result.over(); life++ {
					s := &soak{world: world, result: result, line: c[0], fs: c[1], kinds: kinds,
						rng: rand.New(rand.NewPCG(*seed, uint64(i)<<32|uint64(life)))}
					did := 0
					t.Run(fmt.Sprint(life), func(t *testing.T) { did = s.run(t, min(n, lifetime)) })
					if n -= max(1, did); result.violations() >= 10 {
						t.Fatal("ten violations are enough: mend them first")
					}
				}
			})
		}
	})
}

// soak is the life of one device.
type soak struct {
	world  *fault.World
	result *tally
	line   string
	fs     string
	kinds  []kind
	rng    *rand.Rand

	t      *testing.T
	d      *fault.Device
	good   map[string]string // the modules that are to run
	serial int
	bad    bool // the newest commit is to be refused
	taken  int  // messages, so far
}

// run does rounds until one of them is a violation, and says how many it did.
func (s *soak) run(t *testing.T, rounds int) int {
	s.t, s.d = t, fault.NewDevice(t, fault.Options{World: s.world, Containerd: s.line, FS: s.fs, Clock: true, Hub: *messages})
	s.d.Boot()
	s.good = s.modules()
	s.d.Deploy(s.good)
	if _, err := s.d.Settle(*patience); err != nil {
		t.Fatalf("before any fault: %v", err)
	}
	for _, v := range s.account(kind{}) {
		t.Errorf("before any fault: %s", v)
	}
	s.d.Invariants(t)
	if t.Failed() {
		return 0
	}
	for round := range rounds {
		if s.result.over() {
			return round
		}
		began := time.Now()
		r := s.round()
		r.Took = time.Since(began).Seconds()
		s.result.add(r)
		for _, v := range r.Violations {
			t.Errorf("seed %d, round %d, %s on containerd %s, %s: %s", *seed, round, r.Fault, s.line, s.fs, v)
		}
		if len(r.Violations) > 0 {
			s.keep(round)
			return round + 1
		}
	}
	return rounds
}

// round declares something, breaks something, and looks.
func (s *soak) round() round {
	k := s.kinds[s.rng.IntN(len(s.kinds))]
	r := round{Fault: k.name, FS: s.fs, Containerd: s.line}
	change := s.change()
	r.Change = change.name
	at := "now"
	if k.struck != nil && s.rng.IntN(4) > 0 {
		// At whichever failpoint comes then: the more often one is reached, the more
		// often it is chosen.
		struck := s.d.Controller.At("", s.rng.IntN(40), func() { k.struck(s) })
		s.declare(change)
		select {
		case <-struck:
			at = "at a failpoint"
		case <-time.After(2500 * time.Millisecond):
			if !s.d.Controller.Clear() {
				<-struck
				at = "at a failpoint"
			}
		}
	} else {
		s.declare(change)
		time.Sleep(time.Duration(s.rng.IntN(1200)) * time.Millisecond)
	}
	if at == "now" {
		k.strike(s)
	}
	r.At = at
	if k.mend != nil {
		time.Sleep(time.Duration(s.rng.IntN(600)) * time.Millisecond)
		k.mend(s)
	}
	s.d.Revive()
	report, err := s.d.Settle(*patience)
	if err != nil {
		r.Violations = append(r.Violations, err.Error())
		return r
	}
	r.Violations = append(s.judge(change, report, &r), s.d.Violations()...)
	if *messages {
		before := s.taken
		r.Violations = append(r.Violations, s.account(k)...)
		r.Messages = s.taken - before
	}
	if k.after != nil && len(r.Violations) == 0 {
		k.after(s)
	}
	return r
}

// account says which messages are not where they have to be.
func (s *soak) account(k kind) (violations []string) {
	if !*messages {
		return nil
	}
	if k.name == "state file rot" {
		// What rotted on the disk may be lost before the agent could know of it, or
		// come twice: from here on all is well again.
		time.Sleep(2 * time.Second)
		s.d.Account.Excuse()
	}
	violations = s.d.Account.Settle(*patience)
	s.taken = s.d.Account.Counts().Took
	return violations
}

// keep copies what can be looked at later.
func (s *soak) keep(round int) {
	dir := filepath.Join(harness.Root(), "build", "soak", fmt.Sprintf("%d-%s-%s-%d", *seed, s.line, s.fs, round))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Error(err)
		return
	}
	if s.d.Hub != nil {
		s.d.Hub.Kill()
	}
	for _, from := range []string{s.d.StateDir, filepath.Join(s.d.Dir, "told"), filepath.Join(s.d.Dir, "hub"), s.d.Log(fault.AgentPart), s.d.Log(fault.ContainerdPart), filepath.Join(s.d.Root, "io.containerd.metadata.v1.bolt"), s.d.Git.Dir} {
		if out, err := exec.Command("cp", "-a", from, dir).CombinedOutput(); err != nil {
			s.t.Logf("keep %s: %v: %s", from, err, out)
		}
	}
	if _, stacks, err := s.d.Controller.Goroutines(); err == nil { // the agent may be dead
		if err := os.WriteFile(filepath.Join(dir, "goroutines.txt"), []byte(stacks), 0o644); err != nil {
			s.t.Error(err)
		}
	}
	s.t.Logf("kept in %s", dir)
}
