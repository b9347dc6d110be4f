package reconciler_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// Azure/iotedge#6220: modules are stopped long before the new image is there.
func TestIotedge6220ModulesRunUntilTheirReplacementIsOnTheDisk(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("insight"), module("sensor"))
		stuck := make(chan struct{})
		w.machine.set(func() { w.machine.stuck[image("third")] = stuck })
		w.push(module("insight", from("other")), module("sensor", from("third")))
		after(24 * time.Hour)
		w.did("pull hangs third", "pull other")
		w.runs("insight", "sensor")
		close(stuck)
		w.did("pull third", "remove insight", "remove sensor", "start insight", "start sensor")
	})
}

// aws-greengrass/nucleus#1161: a deployment cannot be cancelled.
func TestANewerCommitPreemptsAStuckDownload(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.set(func() { w.machine.stuck[image("other")] = make(chan struct{}) })
		w.push(module("sensor", from("other")))
		w.phase(schema.PhaseStaging)
		commit := w.settle(module("sensor", from("third")))
		if c := w.machine.container("sensor"); c.Commit != commit || c.Image != image("third") {
			t.Errorf("runs %+v", c)
		}
	})
}

func TestANewerCommitPreemptsATrial(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.push(module("sensor", env("2")))
		w.phase(schema.PhaseGating)
		w.push(module("sensor", env("3")))
		w.did("remove sensor", "start sensor", "remove sensor", "start sensor")
		after(gate + time.Second)
		w.phase(schema.PhaseHealthy)
	})
}

func TestACommitThatGoesBackToWhatRunsEndsTheDownload(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		w.machine.set(func() { w.machine.stuck[image("other")] = make(chan struct{}) })
		w.push(module("sensor", from("other")))
		w.repo.set(func() { w.repo.tip = good })
		w.Moved()
		w.phase(schema.PhaseHealthy)
	})
}

// Azure/iotedge#6971: "Step previously failed … Not running".
func TestIotedge6971DownloadIsTriedForEver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.set(func() { w.machine.faults["pull"] = 100 })
		w.push(module("sensor", from("other")))
		after(5 * time.Hour)
		if s := w.Report().LastDesiredStatus; s.Code != schema.CodeOffline || !strings.Contains(s.Description, "module sensor: pull") {
			t.Errorf("status is %+v", s)
		}
		w.did()
		after(4 * time.Hour)
		w.did("pull other", "remove sensor", "start sensor")
		w.phase(schema.PhaseHealthy)
	})
}

func TestWhenTheRepositoryMovesAFailedDownloadIsTriedAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.set(func() { w.machine.faults["pull"] = 10 })
		w.push(module("sensor", from("other")))
		after(30 * time.Minute)
		w.machine.set(func() { w.machine.faults["pull"] = 0 })
		w.Moved()
		w.did("pull other", "remove sensor", "start sensor")
	})
}

func TestAStartIsTriedForEver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.machine.set(func() { w.machine.faults["start"] = 100 })
		w.push(module("sensor"))
		after(time.Hour)
		report := w.Report()
		if s := report.LastDesiredStatus; s.Code != schema.CodeFailed || !strings.Contains(s.Description, "sensor cannot be started") {
			t.Errorf("status is %+v", s)
		}
		if m := report.Modules["sensor"]; m.RuntimeStatus != schema.RuntimeFailed {
			t.Errorf("reported of sensor %+v", m)
		}
		after(9 * time.Hour)
		w.runs("sensor")
		w.phase(schema.PhaseHealthy)
	})
}

func TestAFailedTrialRollsTheWholeRevisionBack(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("insight", env("1")), module("sensor"))
		w.machine.lives["sensor"] = life{5 * time.Second, 3}
		bad := w.push(module("insight", env("2")), module("sensor", from("other")))
		w.repo.set(func() { w.repo.err = errOffline }) // a roll-back needs no network
		after(4 * time.Second)
		w.machine.set(func() { delete(w.machine.lives, "sensor") })
		w.machine.done()
		after(2 * time.Second)
		w.did("exit sensor", "remove insight", "remove sensor", "start insight", "start sensor")
		after(time.Minute)
		check := func() {
			t.Helper()
			w.phase(schema.PhaseRolledBack)
			report := w.Report()
			if report.Revision.Commit != good || report.LastGood.Commit != good {
				t.Errorf("runs %s, last-good %s, want %s", report.Revision.Commit, report.LastGood.Commit, good)
			}
			if r := report.Refused; r == nil || r.Revision.Commit != bad || r.Reason != "sensor exited with code 3" || r.Module != "sensor" {
				t.Errorf("refused %+v", r)
			}
			if s := report.LastDesiredStatus; s.Code != schema.CodeFailed || s.Description != "sensor exited with code 3" {
				t.Errorf("status is %+v", s)
			}
		}
		check()
		w.stop() // the reason survives
		w.start()
		check()
		w.repo.set(func() { w.repo.err = nil })
		after(24 * time.Hour) // and the commit is not tried again
		w.did()
		check()
		w.settle(module("insight", env("2")), module("sensor", from("other"))) // until there is another
	})
}

func TestAJobThatIsDoneIsHealthy(t *testing.T) {
	inWorld(t, func(w *world) {
		w.machine.lives["job"] = life{time.Second, 0}
		w.settle(module("job", func(m *schema.Module) { m.Restart.Policy = schema.RestartNever }))
		if m := w.Report().Modules["job"]; m.RuntimeStatus != schema.RuntimeStopped {
			t.Errorf("reported of job %+v", m)
		}
		after(24 * time.Hour)
		w.did()
	})
}

func TestAnUnsignedImageIsRefusedAndTheOldModulesGoOn(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		bad := w.push(module("insight", from("unsigned")), module("sensor", env("2")))
		after(time.Minute)
		asked := w.verifier.count()
		after(time.Hour)
		w.did()
		report := w.Report()
		if r := report.Refused; r == nil || r.Revision.Commit != bad || r.Phase != schema.PhaseVerifying || r.Module != "insight" || r.Reason == "" {
			t.Errorf("refused %+v", r)
		}
		if report.Phase != schema.PhaseHealthy || report.Revision.Commit != good || report.LastDesiredStatus.Code != schema.CodeBadConfig {
			t.Errorf("reported %+v", report)
		}
		if again := w.verifier.count() - asked; again < 10 || again > 40 {
			t.Errorf("asked %d times in an hour whether it is signed by now", again)
		}
		asked = w.verifier.count()
		w.stop()
		w.start()
		after(time.Minute)
		if w.verifier.count() == asked {
			t.Error("the agent was started again, and did not ask again")
		}
		w.settle(module("sensor", env("3")))
		if r := w.Report().Refused; r != nil {
			t.Errorf("still refused %+v", r)
		}
	})
}

// A pipeline pushes the commit and the signature at about the same time.
func TestASignatureThatComesAfterTheCommitIsFound(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.verifier.refuse(&signing.RefusedError{Reason: "no signature"})
		late := w.push(module("sensor", from("other")))
		after(time.Minute)
		if r := w.Report().Refused; r == nil || r.Revision.Commit != late {
			t.Errorf("refused %+v", r)
		}
		w.verifier.refuse(nil)
		after(10 * time.Minute)
		if report := w.Report(); report.Refused != nil || report.LastGood.Commit != late {
			t.Errorf("reported %+v", report)
		}
	})
}

func TestACommitThatDoesNotRenderIsRefusedWithItsPlace(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		why := &schema.InvalidError{Problems: []schema.Problem{{Position: schema.Position{File: "sites/x/device.cue", Line: 4, Column: 8}, Message: "conflicting values"}}}
		w.repo.set(func() { w.repo.err = errOffline })
		bad := w.push()
		w.repo.set(func() { w.repo.err, w.repo.broken[bad] = nil, why })
		after(time.Minute + 10*time.Second)
		w.did()
		if r := w.Report().Refused; r == nil || r.Phase != schema.PhaseRendering || r.Reason != "sites/x/device.cue:4:8: conflicting values" {
			t.Errorf("refused %+v", r)
		}
	})
}

func TestACommitOfAnUntrustedSignerIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		w.repo.set(func() {
			w.repo.err = &schema.RefusedError{Revision: schema.Revision{Commit: "ff"}, Phase: schema.PhaseFetching, Err: errors.New("no allowed signer")}
		})
		before := w.twin.count()
		after(24 * time.Hour)
		w.did()
		report := w.Report()
		if r := report.Refused; r == nil || r.Revision.Commit != "ff" || r.Reason != "no allowed signer" || report.Revision.Commit != good {
			t.Errorf("reported %+v", report)
		}
		if n := w.twin.count() - before; n != 1 {
			t.Errorf("%d reports of one refusal", n)
		}
		w.repo.set(func() { w.repo.err = nil })
		after(2 * time.Minute)
		if r := w.Report().Refused; r != nil {
			t.Errorf("still refused: %+v", r)
		}
	})
}

// Azure/iotedge#2959: a full disk, or a power cut, corrupts what the device knows.
func TestATargetThatCannotBeSavedIsNotTaken(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		aside := w.StateDir + ".aside"
		must(t, os.Rename(w.StateDir, aside))
		must(t, os.WriteFile(w.StateDir, nil, 0o600)) // no file can be made below it
		w.push(module("sensor", env("2")))
		after(time.Hour)
		w.did()
		if s := w.Report().LastDesiredStatus; s.Code != schema.CodeFailed || !strings.Contains(s.Description, "save state") {
			t.Errorf("status is %+v", s)
		}
		must(t, os.Remove(w.StateDir))
		must(t, os.Rename(aside, w.StateDir))
		after(time.Minute)
		w.did("remove sensor", "start sensor")
		w.phase(schema.PhaseHealthy)
	})
}

func TestImagesThatNothingNeedsArePruned(t *testing.T) {
	inWorld(t, func(w *world) {
		onDisk := func(want ...string) {
			t.Helper()
			after(time.Minute)
			for _, name := range strings.Fields(images) {
				wanted := strings.Contains(strings.Join(want, " "), name)
				if w.machine.disk[image(name)] != wanted {
					t.Errorf("%s on the disk: %v", name, !wanted)
				}
			}
		}
		w.settle(module("sensor"))
		w.settle(module("sensor", from("other")))
		onDisk("other")
		w.machine.lives["sensor"] = life{time.Second, 1}
		w.push(module("sensor", from("third")))
		after(500 * time.Millisecond)
		w.machine.set(func() { clear(w.machine.lives) })
		w.machine.set(func() { w.machine.stuck[image("fourth")] = make(chan struct{}) })
		onDisk("other")
		w.push(module("insight", from("third")), module("sensor", from("fourth")))
		onDisk("other", "third") // what a candidate needs stays
	})
}

// Evidence is what an image is verified by at a boot with no network. Pruning
// takes along the evidence of what is not kept, and what a candidate needs that
// came after it had begun is not among what is.
func TestPruningSparesTheEvidenceOfACandidate(t *testing.T) {
	w := newWorld(t, accept(t), t.TempDir())
	w.Source, w.Renderer, w.Verifier, w.Runtime, w.Store, w.Reporter = w.repo, w.repo, w.verifier, w.machine, w.machine, w.twin
	w.machine.untouched = false
	w.Settled(t.Context(), schema.Desired{Revision: schema.Revision{Commit: "c"}, Device: w.Device})
	verified := make(chan error, 1)
	w.machine.pruning = func() {
		before := w.verifier.count()
		go func() { verified <- w.Verify(t.Context(), image("app")) }()
		for start := time.Now(); time.Since(start) < 100*time.Millisecond; time.Sleep(time.Millisecond) {
			if w.verifier.count() > before {
				t.Fatal("verified while evidence is pruned")
			}
		}
	}
	if err := w.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-verified; err != nil || w.verifier.count() == 0 {
		t.Fatalf("not verified after it: %v", err)
	}
}

func TestPreviewTouchesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("old"), module("sensor", env("1")))
		next := schema.Desired{Modules: []schema.Module{module("new"), module("sensor", env("2"))}}
		plan, err := w.Preview(t.Context(), next)
		must(t, err)
		want := "remove  old: undeclared: not in revision \nremove  sensor: replaced: env changed\nstart   new: has no container\nstart   sensor: replaced: env changed\n"
		if plan.String() != want {
			t.Errorf("plan is\n%swant\n%s", plan, want)
		}
		after(time.Minute)
		w.did()
	})
}

func TestRunSaysWhatItLacks(t *testing.T) {
	if err := (&reconciler.Reconciler{Device: "Not a name"}).Run(t.Context()); err == nil {
		t.Error("runs for a device that cannot be named")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
