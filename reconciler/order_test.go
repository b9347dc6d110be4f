package reconciler_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

var anna = reconciler.Request{By: "anna@console", Reason: "fair in town"}

func (w *world) order(got any, err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// restart is a new agent on the same device.
func (w *world) restart() {
	w.stop()
	w.start()
}

func (w *world) online(is bool) {
	w.repo.set(func() {
		if w.repo.err = errOffline; is {
			w.repo.err = nil
		}
	})
}

// happened lists the kinds of the events, with the commits' last digits.
func (w *world) happened() string {
	var all []string
	for _, e := range w.History() {
		commit := e.Revision.Commit
		all = append(all, e.Kind+" "+strings.TrimLeft(commit, "0"))
	}
	return strings.Join(all, ", ")
}

// rancher/fleet#2066: a device cannot say "not now".
func TestASuspendedDeviceTakesNothingOver(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		w.order(w.Suspend(anna))
		w.phase(schema.PhaseSuspended)
		newer := w.push(module("sensor", env("2")))
		check := func() {
			t.Helper()
			after(time.Hour)
			w.did()
			report := w.Report()
			if report.Phase != schema.PhaseSuspended || report.Revision.Commit != good || report.Newest.Commit != newer {
				t.Errorf("reported %+v", report)
			}
			if o := report.Order; o == nil || o.Kind != schema.OrderSuspend || o.By != anna.By || o.Reason != anna.Reason || o.At.IsZero() {
				t.Errorf("order is %+v", o)
			}
		}
		check()
		w.restart()
		check()
		w.order(w.Suspend(reconciler.Request{By: "ben", Reason: "longer"})) // nothing but who and why
		if o := w.Report().Order; o.By != "ben" || o.Kind != schema.OrderSuspend {
			t.Errorf("order is %+v", o)
		}
		was, err := w.Resume(reconciler.Request{By: "anna"})
		if err != nil || was == nil || was.By != "ben" {
			t.Errorf("ended %+v, %v", was, err)
		}
		w.did("remove sensor", "start sensor")
		after(gate + time.Second)
		w.phase(schema.PhaseHealthy)
		if report := w.Report(); report.Order != nil || !report.Newest.IsZero() || report.LastGood.Commit != newer {
			t.Errorf("reported %+v", report)
		}
		if got := w.happened(); got != "taken-over 1, healthy 1, suspend 1, suspend 1, resume 1, taken-over 2, healthy 2" {
			t.Errorf("happened: %s", got)
		}
		was, err = w.Resume(reconciler.Request{By: "anna"}) // what is not suspended
		if err != nil || was != nil || len(w.History()) != 7 {
			t.Errorf("ended %+v, %v", was, err)
		}
	})
}

func TestASuspensionEndsADownloadAndLetsATrialEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		w.machine.set(func() { w.machine.stuck[image("other")] = make(chan struct{}) })
		w.push(module("sensor", from("other")))
		w.phase(schema.PhaseStaging)
		w.order(w.Suspend(anna))
		w.phase(schema.PhaseSuspended)
		w.order(w.Resume(anna))
		w.machine.set(func() { clear(w.machine.stuck) })
		w.phase(schema.PhaseStaging)
		w.machine.lives["sensor"] = life{5 * time.Second, 3}
		bad := w.push(module("sensor", from("third")))
		w.phase(schema.PhaseGating)
		w.order(w.Suspend(anna))
		w.phase(schema.PhaseGating)
		after(4 * time.Second)
		w.machine.set(func() { clear(w.machine.lives) })
		after(time.Minute)
		w.phase(schema.PhaseSuspended)
		report := w.Report()
		if report.Revision.Commit != good || report.Refused == nil || report.Refused.Revision.Commit != bad {
			t.Errorf("reported %+v", report)
		}
	})
}

func TestFetchedAndRefusedIsVisibleWhileSuspended(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.order(w.Suspend(anna))
		w.repo.set(func() {
			w.repo.err = &schema.RefusedError{Revision: schema.Revision{Commit: "ff"}, Phase: schema.PhaseFetching, Err: errors.New("no allowed signer")}
		})
		after(2 * time.Minute)
		w.phase(schema.PhaseSuspended)
		if r := w.Report().Refused; r == nil || r.Revision.Commit != "ff" {
			t.Errorf("refused %+v", r)
		}
	})
}

func TestRollbackWorksOfflineAndIsRemembered(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.settle(module("sensor"))
		second := w.settle(module("sensor", env("2")))
		w.online(false)
		back, err := w.Rollback(anna)
		if err != nil || back.From.Commit != second || back.To.Commit != first || back.Hold {
			t.Fatalf("%+v, %v", back, err)
		}
		w.did("remove sensor", "start sensor")
		after(gate + time.Second)
		w.online(true)
		check := func() {
			t.Helper()
			after(time.Hour)
			w.did()
			w.phase(schema.PhaseRolledBack)
			report := w.Report()
			if report.Revision.Commit != first || report.LastGood.Commit != first || report.Newest.Commit != second || report.Order != nil {
				t.Errorf("reported %+v", report)
			}
			if r := report.Refused; r == nil || r.Revision.Commit != second || r.By != anna.By || r.Reason != anna.Reason {
				t.Errorf("refused %+v", r)
			}
			if s := report.LastDesiredStatus; s.Code != schema.CodeFailed || s.Description != "rolled back by anna@console: fair in town" {
				t.Errorf("status is %+v", s)
			}
		}
		check()
		w.restart()
		check()
		third := w.settle(module("sensor", env("3"))) // a new commit
		if r := w.Report(); r.Refused != nil || r.Revision.Commit != third {
			t.Errorf("reported %+v", r)
		}
		if got := w.happened(); got != "taken-over 1, healthy 1, taken-over 2, healthy 2, rolled-back 2, taken-over 1, healthy 1, taken-over 3, healthy 3" {
			t.Errorf("happened: %s", got)
		}
	})
}

// What a person left comes back with retry, or with resume.
func TestRollbackIsUndoneByRetryAndByResume(t *testing.T) {
	for name, undo := range map[string]func(w *world){
		"retry": func(w *world) {
			again, err := w.Retry(reconciler.Request{By: "anna"})
			if err != nil || again.IsZero() {
				w.Errorf("%+v, %v", again, err)
			}
		},
		"resume": func(w *world) { w.order(w.Resume(reconciler.Request{By: "anna"})) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.settle(module("sensor"))
				second := w.settle(module("sensor", env("2")))
				w.order(w.Rollback(anna))
				after(gate + time.Minute)
				w.phase(schema.PhaseRolledBack)
				undo(w)
				after(gate + time.Second)
				w.phase(schema.PhaseHealthy)
				if r := w.Report(); r.LastGood.Commit != second || r.Refused != nil {
					t.Errorf("reported %+v", r)
				}
			})
		})
	}
}

func TestAHoldOutlastsNewCommitsUntilResumed(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.settle(module("sensor"))
		w.settle(module("sensor", env("2")))
		q := anna
		q.Hold, q.To = true, first[:40]
		back, err := w.Rollback(q)
		if err != nil || !back.Hold || back.To.Commit != first {
			t.Fatalf("%+v, %v", back, err)
		}
		after(gate + time.Second)
		third := w.push(module("sensor", env("3")))
		after(time.Hour)
		w.restart()
		after(time.Hour)
		w.phase(schema.PhaseSuspended)
		r := w.Report()
		if r.Revision.Commit != first || r.Newest.Commit != third || r.Order.Kind != schema.OrderHold || r.Order.Revision.Commit != first {
			t.Errorf("reported %+v", r)
		}
		if _, err := w.Retry(reconciler.Request{By: "ben"}); err == nil || !strings.Contains(err.Error(), "held at 000000000000 by anna@console: fair in town: resume it first") {
			t.Errorf("retried: %v", err)
		}
		w.order(w.Resume(reconciler.Request{By: "ben"}))
		after(gate + time.Second)
		w.phase(schema.PhaseHealthy)
		if r := w.Report(); r.LastGood.Commit != third || r.Order != nil {
			t.Errorf("reported %+v", r)
		}
	})
}

// What runs can be held where it is.
func TestATargetCanBeHeld(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		q := reconciler.Request{By: "anna", Reason: "audit", To: good, Hold: true}
		w.order(w.Rollback(q))
		w.push(module("sensor", env("2")))
		after(time.Hour)
		w.did()
		w.phase(schema.PhaseSuspended)
		q.Hold = false
		if _, err := w.Rollback(q); err == nil || !strings.Contains(err.Error(), "--hold") {
			t.Errorf("rolled back to what runs: %v", err)
		}
	})
}

// An agent that ends between the order and its deed does the deed.
func TestARollbackSurvivesTheAgent(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.settle(module("sensor", from("other")))
		w.settle(module("sensor"))
		after(time.Minute)
		w.machine.set(func() { delete(w.machine.disk, image("other")) })
		w.machine.set(func() { w.machine.stuck[image("other")] = make(chan struct{}) })
		w.restart() // which knows nothing of the image
		q := anna
		q.To = first
		w.order(w.Rollback(q))
		w.phase(schema.PhaseStaging)
		w.stop()
		w.online(false)
		w.machine.set(func() { clear(w.machine.stuck) })
		w.machine.done()
		w.start()
		w.did("pull other", "remove sensor", "start sensor")
		after(gate + time.Second)
		if r := w.Report(); r.Phase != schema.PhaseRolledBack || r.Revision.Commit != first {
			t.Errorf("reported %+v", r)
		}
	})
}

// A newer commit pre-empts at any stage, a return that cannot be staged too; a
// newer commit that is refused does not.
func TestANewerCommitPreemptsAReturn(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.settle(module("sensor", from("other")))
		w.settle(module("sensor"))
		after(time.Minute)
		w.restart()
		w.machine.set(func() {
			delete(w.machine.disk, image("other"))
			w.machine.stuck[image("other")] = make(chan struct{})
		})
		w.restart()
		w.order(w.Rollback(reconciler.Request{By: "anna", Reason: "x", To: first}))
		w.phase(schema.PhaseStaging)
		refused := w.push(module("sensor", from("unsigned")))
		w.phase(schema.PhaseStaging) // the return, again
		if r := w.Report(); r.Newest.Commit != refused {
			t.Errorf("reported %+v", r)
		}
		good := w.settle(module("sensor", env("4")))
		after(24 * time.Hour)
		if r := w.Report(); r.Revision.Commit != good || r.Phase != schema.PhaseHealthy {
			t.Errorf("reported %+v", r)
		}
	})
}

// A revision that was good once is gated all the same, and left if it fails.
func TestAReturnThatFailsItsTrialIsLeft(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		second := w.settle(module("sensor", env("2")))
		w.machine.lives["sensor"] = life{5 * time.Second, 3}
		w.order(w.Rollback(anna))
		after(4 * time.Second)
		w.machine.set(func() { clear(w.machine.lives) })
		after(time.Hour)
		r := w.Report()
		if r.Revision.Commit != second || r.Phase != schema.PhaseRolledBack || r.Refused.Reason != "sensor exited with code 3" {
			t.Errorf("reported %+v\n%s", r, w.lines)
		}
		w.runs("sensor")
	})
}

func TestRollbackSaysWhatThereIs(t *testing.T) {
	inWorld(t, func(w *world) {
		if _, err := w.Rollback(anna); err == nil || !strings.Contains(err.Error(), "not run a revision yet") {
			t.Errorf("rolled back: %v", err)
		}
		w.settle(module("sensor"))
		if _, err := w.Rollback(anna); err == nil || !strings.Contains(err.Error(), "no good revision before 000000000000") {
			t.Errorf("rolled back: %v", err)
		}
		w.settle(module("sensor", env("2")))
		for to, want := range map[string]string{
			"abcd":  `"abcd" is not the beginning of a revision whose definition this device keeps; it keeps 000000000000, 000000000000`,
			"0000":  `"0000" is the beginning of more than one revision`,
			"1":     "at least the first 4 digits",
			"../..": "at least the first 4 digits",
		} {
			q := anna
			q.To = to
			if _, err := w.Rollback(q); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("rolled back to %s: %v", to, err)
			}
		}
		after(time.Minute)
		w.did()
		if len(w.History()) != 4 {
			t.Errorf("happened: %s", w.happened())
		}
	})
}

func TestAnOrderSaysWhoAndWhy(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		for _, q := range []reconciler.Request{
			{},
			{By: " ", Reason: "x"},
			{By: "anna"},
			{By: "anna", Reason: "two\nlines"},
			{By: "a\x1b[31m", Reason: "x"},
			{By: "\xff", Reason: "x"},
			{By: strings.Repeat("a", 300), Reason: "x"},
			{By: "anna", Reason: strings.Repeat("x", 2000)},
		} {
			if _, err := w.Suspend(q); err == nil {
				t.Errorf("suspended by %+v", q)
			}
		}
		w.phase(schema.PhaseHealthy)
		if _, err := w.Retry(reconciler.Request{}); err == nil {
			t.Error("retried by nobody")
		}
		if _, err := w.Resume(reconciler.Request{}); err == nil {
			t.Error("resumed by nobody")
		}
	})
}

// An order that could not be written was not given.
func TestAnOrderIsOnTheDiskBeforeItIsAnswered(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		aside := w.StateDir + ".aside"
		must(t, os.Rename(w.StateDir, aside))
		must(t, os.WriteFile(w.StateDir, nil, 0o600)) // no file can be made below it
		if _, err := w.Suspend(anna); err == nil || !strings.Contains(err.Error(), "save state") {
			t.Errorf("suspended: %v", err)
		}
		w.phase(schema.PhaseHealthy)
		must(t, os.Remove(w.StateDir))
		must(t, os.Rename(aside, w.StateDir))
		w.order(w.Suspend(anna))
		w.restart()
		w.phase(schema.PhaseSuspended)
	})
}

// A commit that failed its trial is tried again when a person says so.
func TestRetryTriesABadCommitAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.lives["sensor"] = life{5 * time.Second, 3}
		bad := w.push(module("sensor", env("2")))
		after(4 * time.Second)
		w.machine.set(func() { clear(w.machine.lives) })
		after(time.Hour)
		w.phase(schema.PhaseRolledBack)
		w.machine.done()
		again, err := w.Retry(reconciler.Request{By: "anna"})
		if err != nil || again.Commit != bad {
			t.Fatalf("%+v, %v", again, err)
		}
		w.did("remove sensor", "start sensor")
		after(gate + time.Second)
		w.phase(schema.PhaseHealthy)
		if r := w.Report(); r.LastGood.Commit != bad || r.Refused != nil || r.LastDesiredStatus.Code != schema.CodeOK {
			t.Errorf("reported %+v", r)
		}
		if again, err := w.Retry(reconciler.Request{By: "anna"}); err != nil || !again.IsZero() {
			t.Errorf("retried what runs: %+v, %v", again, err)
		}
		if got := w.happened(); got != "taken-over 1, healthy 1, taken-over 2, rolled-back 2, retry 2, taken-over 2, healthy 2" {
			t.Errorf("happened: %s", got)
		}
	})
}

func TestRetryTriesARefusedCommitAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.online(false)
		bad := w.push(module("sensor", env("2")))
		w.repo.set(func() { w.repo.err, w.repo.broken[bad] = nil, errors.New("device.cue:4:8: no") })
		after(2 * time.Minute)
		if r := w.Report(); r.Refused == nil || r.Refused.Phase != schema.PhaseRendering {
			t.Fatalf("reported %+v", r)
		}
		w.repo.set(func() { delete(w.repo.broken, bad) })
		after(time.Hour)
		w.did()
		w.order(w.Retry(reconciler.Request{By: "anna"}))
		w.did("remove sensor", "start sensor")
		after(gate + time.Second)
		if r := w.Report(); r.Refused != nil || r.LastGood.Commit != bad {
			t.Errorf("reported %+v", r)
		}
	})
}

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

// A disk has room again once what nothing needs is gone.
func TestRoomIsMadeBeforeADownload(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.settle(module("sensor", from("other")))
		after(time.Minute)
		w.machine.set(func() { w.machine.capacity = 2; w.machine.disk[image("fourth")] = true }) // of a candidate that was dropped
		w.machine.done()
		w.push(module("sensor", from("third")))
		w.did("pull third", "remove sensor", "start sensor")
		w.machine.set(func() {
			if w.machine.disk[image("fourth")] || !w.machine.disk[image("other")] {
				t.Errorf("on the disk: %v", w.machine.disk)
			}
		})
	})
}

func TestNoRoomIsARefusalThatIsTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		w.machine.set(func() { w.machine.capacity = 1 })
		commit := w.push(module("insight", from("other")), module("sensor"))
		after(time.Minute)
		reports := w.twin.count()
		after(time.Hour)
		w.did()
		r := w.Report()
		if r.Refused == nil || r.Refused.Revision.Commit != commit || r.Refused.Phase != schema.PhaseStaging || !strings.Contains(r.Refused.Reason, "1.0 MiB to download") {
			t.Fatalf("reported %+v", r)
		}
		if r.Phase != schema.PhaseHealthy || r.Revision.Commit != good || r.LastDesiredStatus.Code != schema.CodeFailed {
			t.Errorf("reported %+v", r)
		}
		if n := w.twin.count() - reports; n > 70 {
			t.Errorf("%d reports in an hour", n)
		}
		w.machine.set(func() { w.machine.capacity = 2 })
		after(6 * time.Minute)
		w.did("pull other", "start insight")
		if n := strings.Count(w.happened(), "refused"); n != 1 {
			t.Errorf("%d events of one refusal", n)
		}
	})
}

// What fits when asked may not fit any more when written.
func TestADiskThatFillsWhileDownloadingRefuses(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		stuck := make(chan struct{})
		w.machine.set(func() { w.machine.stuck[image("other")] = stuck })
		commit := w.push(module("insight", from("other")), module("sensor"))
		w.machine.set(func() { w.machine.capacity = 1; clear(w.machine.stuck) })
		close(stuck)
		after(time.Minute)
		if r := w.Report().Refused; r == nil || r.Phase != schema.PhaseStaging || r.Revision.Commit != commit {
			t.Fatalf("refused %+v", r)
		}
		w.machine.set(func() { w.machine.capacity = 0 })
		w.Moved()
		w.did("pull hangs other", "pull other", "start insight")
	})
}

// An order in the middle of a refusal, and a commit in the middle of an order.
func TestOrdersPreemptAStuckDownload(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.settle(module("sensor"))
		second := w.settle(module("sensor", env("2")))
		w.machine.set(func() { w.machine.stuck[image("other")] = make(chan struct{}) })
		stuck := w.push(module("sensor", from("other")))
		w.phase(schema.PhaseStaging)
		q := anna
		q.Hold = true
		w.order(w.Rollback(q))
		w.did("pull hangs other", "remove sensor", "start sensor")
		after(gate + time.Second)
		w.phase(schema.PhaseSuspended)
		if r := w.Report(); r.Revision.Commit != first || r.Newest.Commit != stuck {
			t.Errorf("reported %+v, want %s rather than %s", r, first, second)
		}
	})
}

func TestImagesToKeepAreVerifiedPulledAndKept(t *testing.T) {
	inWorld(t, func(w *world) {
		w.push()
		commit := w.repo.commit(schema.Desired{Device: w.Device, Gate: schema.Duration(gate), Keep: []schema.Image{image("other")}, Modules: []schema.Module{module("sensor")}})
		w.Moved()
		after(gate + time.Minute)
		if r := w.Report(); r.LastGood.Commit != commit {
			t.Fatalf("reported %+v", r)
		}
		after(time.Hour)
		w.machine.set(func() {
			if !w.machine.disk[image("other")] || w.machine.prunes == 0 {
				t.Errorf("on the disk: %v", w.machine.disk)
			}
		})
		w.repo.commit(schema.Desired{Device: w.Device, Keep: []schema.Image{image("unsigned")}, Modules: []schema.Module{module("sensor")}})
		w.Moved()
		after(time.Minute)
		if r := w.Report().Refused; r == nil || r.Phase != schema.PhaseVerifying || r.Module != "" {
			t.Errorf("refused %+v", r)
		}
	})
}

// A definition that the owner does not permit any more is not returned to.
func TestARollbackHeedsTheOwner(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		second := w.settle(module("sensor", env("2")))
		w.permits = func(d schema.Desired) error {
			if d.Modules[0].Env == nil {
				return errors.New("module sensor: needs an environment")
			}
			return nil
		}
		w.restart()
		w.order(w.Rollback(anna))
		after(time.Hour)
		w.did()
		r := w.Report()
		if r.Revision.Commit != second || r.Refused == nil || !strings.Contains(r.Refused.Reason, "needs an environment") {
			t.Errorf("reported %+v", r)
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
