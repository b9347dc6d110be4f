package fault_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/fault"
)

// again is how often each fault comes once more: more often than anything may grow.
const again = 3

// TestAnAgentHoldsNoMoreAfterManyFaultsThanAfterOne breaks what the agent is
// connected to, again and again, while it brings new revisions. What one fault of a
// kind, or one revision, makes it keep for good is there three more times, or nine,
// in the end. (The agent once had 56 descriptors where 55 were allowed: packs
// of the clone, which is compacted at 17, and connections to the registry, which end
// after half a minute. Neither is a leak, and both are counted apart now.)
func TestAnAgentHoldsNoMoreAfterManyFaultsThanAfterOne(t *testing.T) {
	t.Parallel()
	d := booted(t, fault.Options{})
	cut := func() {
		d.Link.Cut()
		time.Sleep(50 * time.Millisecond)
		d.Link.Restore()
	}
	blows := []struct {
		name   string
		strike func()
	}{
		{"containerd killed", func() { d.Kill(fault.ContainerdPart) }},
		{"shim killed", func() { d.Kill(fault.ShimPart) }},
		{"link cut", cut},
	}
	strike := func(round int) {
		b := blows[round%len(blows)]
		struck := d.Controller.At("", round*5%16, b.strike) // at one failpoint or another
		next := modules(d.World, 0)
		next["alpha"] = fmt.Sprintf(`image: %q, env: ROUND: "%d", restart: {min: "0s", max: "5s"}, stop: timeout: "2s"`, d.World.Images[3+round%3], round)
		d.Deploy(next)
		select {
		case <-struck:
		case <-time.After(deadline):
			t.Fatalf("%s: no failpoint was reached", b.name)
		}
		d.Revive()
		if settled(t, d); t.Failed() {
			t.FailNow() // each further round would wait for long
		}
	}
	for round := range blows {
		strike(round)
	}
	first := census(t, d)
	for round := range again * len(blows) {
		strike(len(blows) + round)
	}
	// What takes its time to end has it.
	var last fault.Census
	for end := time.Now().Add(deadline); ; time.Sleep(200 * time.Millisecond) {
		last = census(t, d)
		if last.FDs < first.FDs+again && last.Goroutines < first.Goroutines+again {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after %d of each fault the agent holds %+v; after the first of each it held %+v", again, last, first)
		}
	}
	if last.Agent != first.Agent {
		t.Errorf("the agent is process %d, and was %d: it was not the same that was looked at", last.Agent, first.Agent)
	}
	if last.Threads > first.Threads+again { // they are never fewer
		t.Errorf("%d threads; after the first of each fault there were %d", last.Threads, first.Threads)
	}
	t.Logf("after the first of each fault %+v", first)
	t.Logf("in the end %+v", last)
}

func census(t *testing.T, d *fault.Device) fault.Census {
	t.Helper()
	c, err := d.Census()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
