package reconciler_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// reboot is a power cut: agent and modules end, and all starts anew.
func (w *world) reboot() {
	w.Helper()
	w.stop()
	w.machine.reboot()
	w.boot += "i"
	w.start()
}

// A revision under which the machine dies, of a kernel that panics or of power
// that does not suffice, never comes to the end of a trial.
func TestARevisionUnderWhichTheMachineKeepsDyingIsRolledBack(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor", env("1")))
		bad := w.push(module("sensor", env("2")))
		for n := 1; n <= 5; n++ {
			after(5 * time.Second)
			if r := w.Report(); r.Revision.Commit != bad || r.Refused != nil {
				t.Fatalf("before reboot %d: reported %+v", n, r)
			}
			w.machine.done()
			w.reboot()
		}
		after(time.Second)
		w.did("remove sensor", "start sensor") // and nothing of the bad revision ran again
		for range 6 {
			after(5 * time.Second)
			r := w.Report()
			if r.Revision.Commit != good || r.Refused == nil || r.Refused.Revision.Commit != bad || r.Refused.Reason != "the machine was started 5 times before the gate had passed" {
				t.Fatalf("reported %+v", r)
			}
			w.reboot()
		}
		after(time.Hour)
		w.phase(schema.PhaseRolledBack)
		w.runs("sensor")
		if n := strings.Count(w.happened(), "rolled-back"); n != 1 {
			t.Errorf("rolled back %d times: %s", n, w.happened())
		}
		w.settle(module("sensor", env("3"))) // another one has its own trial
		for range 6 {
			after(5 * time.Second)
			w.reboot()
		}
		after(gate)
		w.phase(schema.PhaseHealthy)
	})
}

func TestARevisionUnderWhichTheAgentKeepsDyingIsRolledBack(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor", env("1")))
		w.boot = "i" // of an earlier agent, which did not say
		bad := w.push(module("sensor", env("2")))
		for n := 1; n <= 10; n++ {
			if r := w.Report(); r.Revision.Commit != bad {
				t.Fatalf("before start %d: reported %+v", n, r)
			}
			after(gate - 2*time.Second)
			w.stop()
			w.start()
		}
		r := w.Report()
		if r.Revision.Commit != good || r.Refused == nil || r.Refused.Reason != "the agent was started 10 times before the gate had passed" {
			t.Errorf("reported %+v", r)
		}
	})
}

// There is nothing to go back to from the first revision. What mends it is its
// successor, so there has to be time to fetch that.
func TestAFirstRevisionUnderWhichTheMachineKeepsDyingLetsItsSuccessorCome(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.push(module("sensor", env("1")))
		for range 5 {
			after(5 * time.Second)
			w.reboot()
		}
		w.machine.done()
		after(59 * time.Second)
		w.did()
		r := w.Report()
		if r.Revision.Commit != first || r.LastDesiredStatus.Code != schema.CodeFailed || !strings.Contains(r.LastDesiredStatus.Description, "started 5 times") {
			t.Errorf("reported %+v", r)
		}
		after(2 * time.Second)
		w.did("restart sensor") // a device that was only switched off often works all the same
		w.reboot()
		w.settle(module("sensor", env("2")))
		if r := w.Report(); r.LastDesiredStatus.Code != schema.CodeOK {
			t.Errorf("reported %+v", r)
		}
	})
}

func TestAFirstRevisionPassesItsGateAfterManyBoots(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.push(module("sensor"))
		for range 20 {
			after(5 * time.Second)
			w.reboot()
		}
		after(time.Minute + gate + time.Second)
		w.phase(schema.PhaseHealthy)
		if r := w.Report(); r.LastGood.Commit != first || r.LastDesiredStatus.Code != schema.CodeOK {
			t.Errorf("reported %+v", r)
		}
	})
}
