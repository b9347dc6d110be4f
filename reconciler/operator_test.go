package reconciler_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// What a person sees of a device, where it once misled.

// A person who rolls back says why the target is left, not why a newer commit
// failed before, and Resume does not run that into its failure again.
func TestARollbackKeepsWhyTheNewestCommitFailed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.settle(module("sensor", env("2")))
		w.machine.lives["sensor"] = life{5 * time.Second, 3}
		bad := w.push(module("sensor", env("3")))
		after(4 * time.Second)
		w.machine.set(func() { clear(w.machine.lives) })
		after(time.Hour)
		check := func() {
			t.Helper()
			if r := w.Report().Refused; r == nil || r.Revision.Commit != bad || r.By != "" || r.Reason != "sensor exited with code 3" {
				t.Errorf("refused %+v", r)
			}
		}
		check()
		w.order(w.Rollback(anna))
		check()
		after(time.Hour)
		check()
		w.order(w.Suspend(anna))
		check()
		w.order(w.Resume(anna))
		after(time.Hour)
		check()
		w.phase(schema.PhaseRolledBack)
		w.restart()
		after(time.Hour)
		check()
		w.phase(schema.PhaseRolledBack)
		if n := strings.Count(w.happened(), "taken-over "+strings.TrimLeft(bad, "0")); n != 1 {
			t.Errorf("happened: %s", w.happened())
		}
	})
}

// The wait after a restart that failed is for trying the same again; making the
// container anew is another thing to try.
func TestAContainerThatCannotBeRestartedIsMadeAnewAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.set(func() { w.machine.faults["restart"] = 1 })
		w.stop()
		w.machine.reboot()
		w.machine.done()
		w.start()
		after(time.Second)
		w.didInOrder("remove sensor", "start sensor")
		w.runs("sensor")
	})
}

// The time in which no definition named the module is not downtime.
func TestTheTimeInWhichAModuleIsNotDeclaredIsNoDowntime(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"), module("app"))
		w.settle(module("app"))
		after(time.Hour)
		w.settle(module("sensor"), module("app"))
		if d := w.downtime("sensor"); d != 0 {
			t.Errorf("down for %v", d)
		}
	})
}

// A module that never became ready may have printed why.
func TestAModuleThatNeverWasReadyIsShownWithWhatItPrinted(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("app"))
		w.answer("sensor readiness", errRefused)
		w.push(module("app"), module("sensor", asks("readiness")))
		after(time.Hour)
		r := w.Report().Refused
		if r == nil || !strings.Contains(r.Reason, "sensor was not healthy within 10m0s") || r.Output == "" {
			t.Errorf("refused %+v", r)
		}
	})
}

// A module that comes back at once hides nothing: the report has how it ended.
func TestAModuleThatWasRestartedSaysHowItEnded(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.crash("sensor", 7)
		after(time.Minute)
		m := w.Report().Modules["sensor"]
		if m.RuntimeStatus != schema.RuntimeRunning || m.Restarts != 1 || m.ExitCode != 7 || m.ExitedAt.IsZero() || m.StatusDescription != "before this run it exited with code 7" {
			t.Errorf("reported %+v", m)
		}
		if s := w.Report().LastDesiredStatus; s.Code != schema.CodeOK {
			t.Errorf("status is %+v", s)
		}
		w.settle(module("sensor", env("2")))
		if m := w.Report().Modules["sensor"]; m.ExitCode != 0 || m.StatusDescription != "" {
			t.Errorf("another container reported %+v", m)
		}
	})
}

// Of a hundred images the one that is refused is some module's, or only kept.
func TestAnImageThatIsRefusedNamesWhoNeedsIt(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.verifier.refuse(&signing.RefusedError{Image: image("unsigned"), Reason: "no signature"})
		w.push(module("sensor"), module("app", from("unsigned")))
		after(time.Minute)
		if r := w.Report().Refused; r == nil || r.Module != "app" || !strings.HasPrefix(r.Reason, "module app: ") {
			t.Errorf("refused %+v", r)
		}
	})
}

// A hold is an event of its own: of a suspension nobody could tell where the
// device stays, and a state that is rebuilt from the history would not.
func TestAHoldIsInTheHistoryAndOutlastsALostState(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		w.settle(module("sensor", env("2")))
		q := anna
		q.Hold = true
		w.order(w.Rollback(q))
		after(gate + time.Second)
		if got := w.happened(); !strings.Contains(got, "rolled-back 2, hold 1, taken-over 1") {
			t.Errorf("happened: %s", got)
		}
		w.stop()
		must(t, os.Remove(filepath.Join(w.StateDir, "state.json")))
		w.start()
		w.push(module("sensor", env("3")))
		after(time.Hour)
		if r := w.Report(); r.Revision.Commit != good || r.Order == nil || r.Order.Kind != schema.OrderHold || r.Order.Revision.Commit != good || r.Order.By != anna.By {
			t.Errorf("reported %+v", r)
		}
	})
}

// A module that the newest revision does not declare and that cannot be removed
// still runs: that is not a device as declared.
func TestAModuleThatCannotBeRemovedIsReported(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("old"), module("sensor"))
		w.machine.set(func() { w.machine.faults["remove"] = -1 })
		w.push(module("sensor"))
		after(10 * time.Minute)
		w.runs("old", "sensor")
		if s := w.Report().LastDesiredStatus; s.Code != schema.CodeFailed || !strings.Contains(s.Description, "old") || !strings.Contains(s.Description, errFault.Error()) {
			t.Errorf("status is %+v", s)
		}
		w.machine.set(func() { clear(w.machine.faults) })
		after(6 * time.Minute)
		w.runs("sensor")
		if s := w.Report().LastDesiredStatus; s.Code != schema.CodeOK {
			t.Errorf("status is %+v", s)
		}
	})
}
