package reconciler_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
)

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
		if _, err := w.Retry(reconciler.Request{By: "ben"}); err == nil || !strings.Contains(err.Error(), "resume it first: the device is held at 000000000000 by anna@console: fair in town") {
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
