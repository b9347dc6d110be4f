package reconciler_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
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

func TestWhoHadADeviceLookIsInTheHistoryOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		before := len(w.History())
		for range 5 {
			after(time.Second)
			if err := w.Reconcile(reconciler.Request{By: "anna"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Reconcile(reconciler.Request{By: "ben", Reason: "merged the fix"}); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range w.History()[before:] {
			if e.At.IsZero() {
				t.Errorf("no time: %+v", e)
			}
			got = append(got, e.Kind+" by "+e.By)
		}
		if want := "reconcile by anna, reconcile by ben"; strings.Join(got, ", ") != want {
			t.Errorf("history has %q, want %q", strings.Join(got, ", "), want)
		}
		if err := w.Reconcile(reconciler.Request{}); err == nil {
			t.Error("nobody may order it")
		}
	})
}

// A person may ask before the agent has read its state.
func TestAnAgentThatStartsSaysSo(t *testing.T) {
	r := &reconciler.Reconciler{StateDir: t.TempDir()}
	if err := r.Reconcile(reconciler.Request{By: "anna"}); err == nil || !strings.Contains(err.Error(), "the agent is starting") {
		t.Errorf("reconcile: %v", err)
	}
	if _, err := r.Suspend(anna); err == nil || !strings.Contains(err.Error(), "the agent is starting") {
		t.Errorf("suspend: %v", err)
	}
}

func TestADeviceWithNoHistoryLooksWhenAsked(t *testing.T) {
	inWorld(t, func(w *world) {
		after(time.Second)
		if err := w.Reconcile(reconciler.Request{By: "anna"}); err != nil {
			t.Error(err)
		}
	})
}
