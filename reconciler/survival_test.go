package reconciler_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// What was accepted and not staged is not forgotten because the agent ends and
// the commit after it is refused.
func TestAnAcceptedCommitIsStagedThoughTheNewestIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.set(func() { w.machine.faults["pull"] = -1 })
		accepted := w.push(module("sensor", from("other")))
		after(time.Minute)
		w.stop()
		w.repo.set(func() {
			w.repo.err = &schema.RefusedError{Revision: schema.Revision{Commit: "ff"}, Phase: schema.PhaseFetching, Err: errors.New("no allowed signer")}
		})
		w.machine.set(func() { w.machine.faults["pull"] = 0 })
		w.start()
		before := w.twin.count()
		w.did("pull other", "remove sensor", "start sensor")
		after(time.Hour)
		r := w.Report()
		if r.LastGood.Commit != accepted || r.Refused == nil || r.Refused.Revision.Commit != "ff" {
			t.Errorf("reported %+v", r)
		}
		if n := w.twin.count() - before; n > 10 {
			t.Errorf("%d reports in an hour", n)
		}
	})
}

// Azure/azure-docs#49887: there is no automatic rollback.
func TestAzureDocs49887ABadRevisionIsRolledBackByItselfAcrossPowerCuts(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("insight", env("1")), module("sensor"))
		w.machine.lives["sensor"] = life{time.Second, 1}
		bad := w.push(module("insight", env("2")), module("sensor", from("other")))
		w.stop() // the power fails in the trial
		w.machine.reboot()
		w.online(false)
		w.start()
		after(2 * time.Second)
		w.machine.set(func() { clear(w.machine.lives) })
		after(time.Minute)
		w.stop() // and again
		w.machine.reboot()
		w.start()
		after(time.Hour)
		w.phase(schema.PhaseRolledBack)
		r := w.Report()
		if r.Revision.Commit != good || r.Refused.Revision.Commit != bad {
			t.Errorf("reported %+v", r)
		}
		for _, name := range []string{"insight", "sensor"} {
			if c := w.machine.container(name); c.Commit != good && c.Hash != "" && c.State != schema.StateRunning {
				t.Errorf("runs %+v", c)
			}
		}
		w.runs("insight", "sensor")
	})
}

// flightctl PR#3477: the reason of a failure is lost.
func TestFlightctlPR3477TheReasonOfAFailureSurvives(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.lives["sensor"] = life{time.Second, 3}
		bad := w.push(module("sensor", env("2")))
		after(1500 * time.Millisecond)
		w.machine.set(func() { clear(w.machine.lives) })
		check := func() {
			t.Helper()
			after(time.Hour)
			r := w.Report().Refused
			if r == nil || r.Revision.Commit != bad || r.Module != "sensor" || r.Reason != "sensor exited with code 3" || !strings.Contains(r.Output, "of sensor says goodbye") || r.At.IsZero() {
				t.Errorf("refused %+v", r)
			}
		}
		check()
		for range 3 {
			w.stop()
			w.machine.reboot()
			w.start()
			check()
		}
		w.settle(module("sensor", env("3"))) // and the history keeps it
		var found bool
		for _, e := range w.History() {
			found = found || e.Kind == schema.EventRolledBack && e.Revision.Commit == bad && e.Module == "sensor" && strings.Contains(e.Output, "of sensor says goodbye")
		}
		if !found {
			t.Errorf("history is %+v", w.History())
		}
	})
}

// Azure/iotedge#7406: modules do not come up after an offline reboot.
func TestIotedge7406ModulesComeUpAfterAnOfflineReboot(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("db"), module("sensor", dependsOn("db", schema.ConditionStarted)))
		for range 3 {
			w.stop()
			w.machine.reboot()
			w.online(false)
			w.machine.set(func() { w.machine.faults["room"] = -1 }) // which may ask the registry
			asked := w.verifier.count()
			w.start()
			w.runs("db", "sensor")
			w.did("restart db", "restart sensor")
			after(time.Hour)
			w.phase(schema.PhaseHealthy)
			if r := w.Report(); r.Revision.Commit != good || r.LastDesiredStatus.Code != schema.CodeOffline {
				t.Errorf("reported %+v", r)
			}
			if n := w.verifier.count() - asked; n != 1 {
				t.Errorf("verified %d times", n)
			}
		}
	})
}

// A job that is done is done: it is not run again because the machine was booted, or
// because another revision came that leaves it as it is.
func TestAJobIsNotDoneAgainAfterAReboot(t *testing.T) {
	inWorld(t, func(w *world) {
		boot := func() {
			w.stop()
			w.machine.reboot()
			w.start()
			after(time.Minute)
		}
		w.machine.lives["job"], w.machine.lives["check"], w.machine.lives["broken"] = life{time.Second, 0}, life{time.Second, 0}, life{time.Hour, 7}
		w.settle(module("job", policy(schema.RestartNever)), module("check", policy(schema.RestartOnFailure)),
			module("broken", policy(schema.RestartNever)), module("sensor"))
		boot()
		w.didInAnyOrder("restart broken", "restart sensor") // it was cut off in its work
		after(2 * time.Hour)
		w.did("exit broken")
		for range 3 {
			boot()
			w.did("restart sensor")
			for name, want := range map[string]string{"job": schema.RuntimeStopped, "check": schema.RuntimeStopped, "broken": schema.RuntimeFailed, "sensor": schema.RuntimeRunning} {
				if m := w.Report().Modules[name]; m.RuntimeStatus != want || name == "broken" && m.ExitCode != 7 {
					t.Errorf("reported of %s: %+v, want %s", name, m, want)
				}
			}
		}
		w.push(module("job", policy(schema.RestartNever)), module("check", policy(schema.RestartOnFailure)),
			module("broken", policy(schema.RestartNever)), module("sensor", env("2")))
		after(2 * time.Minute)
		boot()
		w.didInAnyOrder("remove sensor", "start sensor", "restart sensor")
		// Of another definition, and of another policy, they are run.
		w.push(module("job", policy(schema.RestartNever), env("2")), module("check", policy(schema.RestartAlways)),
			module("broken", policy(schema.RestartNever)), module("sensor", env("2")))
		after(3 * time.Second)
		if did := strings.Join(w.machine.done(), ", "); !strings.Contains(did, "start job") || !strings.Contains(did, "restart check") || strings.Contains(did, "broken") {
			t.Errorf("did %s", did)
		}
	})
}

// kubeedge#3941: workloads are rebuilt when the link returns.
func TestKubeedge3941NothingIsRebuiltWhenTheLinkReturns(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("insight"), module("sensor"))
		w.stop()
		w.machine.reboot()
		w.online(false)
		w.start()
		after(24 * time.Hour)
		w.machine.done()
		pid := w.machine.container("sensor").PID
		for range 3 {
			w.online(true)
			w.Moved()
			after(time.Hour)
			w.online(false)
			after(time.Hour)
		}
		w.did()
		if c := w.machine.container("sensor"); c.PID != pid {
			t.Errorf("runs %+v, had pid %d", c, pid)
		}
	})
}

// The history is no reason for a device not to work.
func TestABrokenHistoryIsReportedAndTheDeviceWorks(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.stop()
		flip(t, filepath.Join(w.StateDir, "history.json"))
		w.start()
		w.phase(schema.PhaseHealthy)
		if !strings.Contains(w.lines.String(), "history.json.broken-") {
			t.Error("the log does not say so")
		}
		w.settle(module("sensor", env("2")))
		if got := w.happened(); got != "taken-over 2, healthy 2" {
			t.Errorf("happened: %s", got)
		}
	})
}

func TestASignatureThatIsMissingIsOneEvent(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.verifier.refuse(&signing.RefusedError{Reason: "no signature"})
		w.push(module("sensor", from("other")))
		for range 5 {
			after(time.Hour)
			w.restart()
		}
		if n := strings.Count(w.happened(), "refused"); n != 1 {
			t.Errorf("happened: %s", w.happened())
		}
	})
}

// A state that was rebuilt is there at the next start too: a power cut, or a kill
// before anything was decided, forgets neither what runs nor what is bad.
func TestAStateThatWasRebuiltOrLostSurvivesTheNextStarts(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		w.machine.lives["sensor"] = life{time.Second, 3}
		bad := w.push(module("sensor", env("2")))
		after(2 * time.Second)
		w.machine.set(func() { clear(w.machine.lives) })
		after(time.Minute)
		path := filepath.Join(w.StateDir, "state.json")
		for _, damage := range []func(){func() { flip(t, path) }, func() {}, func() { must(t, os.Remove(path)) }, func() {}} {
			w.stop()
			damage()
			w.machine.reboot()
			w.machine.done()
			w.start()
			after(time.Hour)
			w.did("restart sensor")
			if r := w.Report(); r.Revision.Commit != good || r.LastGood.Commit != good || r.Refused == nil || r.Refused.Revision.Commit != bad {
				t.Fatalf("reported %+v", r)
			}
		}
	})
}

// A kill may come after a decision is on the disk and before the history tells it.
func TestTheHistoryTellsARollbackAfterAKillThoughItWasNotWrittenBefore(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.lives["sensor"] = life{time.Second, 3}
		w.push(module("sensor", env("2")))
		after(2 * time.Second)
		w.machine.set(func() { clear(w.machine.lives) })
		after(time.Minute)
		for i := range 3 {
			w.stop()
			if i == 0 {
				must(t, os.Remove(filepath.Join(w.StateDir, "history.json")))
			}
			w.start()
			after(time.Minute)
			if got := w.happened(); got != "rolled-back 2" {
				t.Errorf("history is %s", got)
			}
		}
	})
}
