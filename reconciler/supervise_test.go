package reconciler_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

func TestCommitBecomesRunningModules(t *testing.T) {
	inWorld(t, func(w *world) {
		w.phase(schema.PhaseWaiting)
		commit := w.push(module("insight"), module("sensor", from("other")))
		w.runs("insight", "sensor")
		w.phase(schema.PhaseGating)
		after(gate + time.Second)
		w.phase(schema.PhaseHealthy)
		report := w.Report()
		if report.Revision.Commit != commit || report.LastGood.Commit != commit || report.LastDesiredStatus.Code != schema.CodeOK {
			t.Errorf("reported %+v", report)
		}
		sensor := report.Modules["sensor"]
		if sensor.RuntimeStatus != schema.RuntimeRunning || sensor.PID == 0 || sensor.Evidence == nil || sensor.Evidence.Image != image("other") {
			t.Errorf("reported of sensor %+v", sensor)
		}
	})
}

func TestOnlyTheChangedModuleIsReplaced(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("insight"), module("sensor", env("1")))
		w.push(module("insight"), module("sensor", env("2")))
		w.did("remove sensor", "start sensor")
		if !strings.Contains(w.lines.String(), `reason="replaced: env changed"`) {
			t.Errorf("no precise reason in the log:\n%s", w.lines)
		}
	})
}

func TestDependenciesStartFirst(t *testing.T) {
	inWorld(t, func(w *world) {
		w.push(
			module("a", dependsOn("c", schema.ConditionStarted)),
			module("b", dependsOn("a", schema.ConditionHealthy)),
			module("c"),
		)
		w.didInOrder("pull app", "start c", "start a")
		after(gate + time.Second)
		w.did("start b")
		after(gate + time.Second)
		w.phase(schema.PhaseHealthy)
	})
}

func TestDriftIsUndone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.plant(schema.Container{ID: "by-hand", State: schema.StateRunning, PID: 99})
		w.machine.crash("sensor", 137)
		after(10 * time.Second)
		w.did("exit sensor", "remove b", "restart sensor")
	})
}

// A device that has never been told what to run is not one that shall run nothing.
func TestNoDefinitionsAreNotEmptyDefinitions(t *testing.T) {
	inWorld(t, func(w *world) {
		w.machine.plant(schema.Container{ID: "by-hand", State: schema.StateRunning, PID: 99})
		after(24 * time.Hour)
		w.did()
		w.push()
		w.did("remove b")
	})
}

// Azure/iotedge#7259: modules that crash stay down while a deployment downloads.
func TestIotedge7259CrashedModuleRestartsWhileAnImageDownloads(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.set(func() { w.machine.stuck[image("other")] = make(chan struct{}) })
		w.push(module("sensor", from("other")))
		w.phase(schema.PhaseStaging)
		w.machine.crash("sensor", 1)
		after(11 * time.Second)
		w.did("pull hangs other", "exit sensor", "restart sensor")
		w.phase(schema.PhaseStaging)
	})
}

// A module that takes its time to stop holds up nobody else either.
func TestCrashedModuleRestartsWhileAnotherStops(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"), module("slow", env("1")))
		w.machine.set(func() { w.machine.slow["slow"] = 10 * time.Minute })
		w.push(module("sensor"), module("slow", env("2")))
		w.machine.crash("sensor", 1)
		after(11 * time.Second)
		w.did("exit sensor", "restart sensor")
		after(10 * time.Minute)
		w.did("remove slow", "start slow")
	})
}

// And the other modules of a revision are not down until the last one has ended.
func TestModulesAreReplacedWhileAnotherTakesAnHourToStop(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", env("1")), module("slow", env("1")))
		w.deadline = 2 * time.Hour
		w.machine.set(func() { w.machine.slow["slow"] = time.Hour })
		w.push(module("sensor", env("2")), module("slow", env("2")))
		w.did("remove sensor")
		after(16 * time.Second)
		w.did("start sensor")
		after(time.Hour)
		w.did("remove slow", "start slow")
	})
}

// Azure/iotedge#6971: the planner gives up for good.
func TestIotedge6971CrashingModuleIsRestartedForEver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.machine.lives["sensor"] = life{time.Second, 3}
		w.push(module("sensor"))
		after(24 * time.Hour)
		restarts := strings.Count(strings.Join(w.machine.done(), "\n"), "restart sensor")
		if restarts < 280 || restarts > 300 { // one in five minutes
			t.Errorf("restarted %d times in a day", restarts)
		}
		report := w.Report()
		if s := report.LastDesiredStatus; s.Code != schema.CodeFailed || s.Description != "sensor exited with code 3" {
			t.Errorf("status is %+v", s)
		}
		if m := report.Modules["sensor"]; m.RuntimeStatus != schema.RuntimeBackoff || m.ExitCode != 3 || m.Restarts != restarts {
			t.Errorf("%d restarts, reported of sensor %+v", restarts, m)
		}
		w.machine.set(func() { delete(w.machine.lives, "sensor") })
		after(5*time.Minute + gate)
		w.phase(schema.PhaseHealthy)
	})
}

func TestBackoffStartsAgainAfterTenMinutesUp(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		for range 4 { // at once, after 10, 20 and 40 s
			w.machine.crash("sensor", 1)
			after(5 * time.Minute)
		}
		w.machine.done()
		w.machine.crash("sensor", 1)
		after(time.Minute)
		w.did("exit sensor") // 160 s
		after(15 * time.Minute)
		w.did("restart sensor")
		w.machine.crash("sensor", 1)
		after(10 * time.Second)
		w.did("exit sensor", "restart sensor")
		if n := w.machine.container("sensor").Restarts; n != 1 {
			t.Errorf("restarts are %d, want 1", n)
		}
	})
}

// A module that waits for its next restart is not left waiting by a revision that
// may well cure it, though its own definition is the same.
func TestANewRevisionStartsEveryBackOffAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("done", policy(schema.RestartNever)), module("sensor"), module("other", env("1")))
		w.machine.crash("done", 0)
		w.machine.set(func() { w.machine.lives["sensor"] = life{time.Second, 1} })
		w.machine.crash("sensor", 1)
		after(time.Hour)
		w.machine.done()
		if n := w.machine.container("sensor").Restarts; n < 10 {
			t.Fatalf("%d restarts in an hour", n)
		}
		for w.machine.container("sensor").State == schema.StateRunning {
			after(time.Second)
		}
		w.machine.done()
		commit := w.push(module("done", policy(schema.RestartNever)), module("sensor"), module("other", env("2")))
		w.didInAnyOrder("remove other", "restart sensor", "start other")
		if n := w.machine.container("sensor").Restarts; n != 1 {
			t.Errorf("%d restarts are counted", n)
		}
		after(21500 * time.Millisecond)
		w.did("exit sensor", "restart sensor")
		after(gate)
		w.phase(schema.PhaseHealthy) // a module that it does not change is not the revision's fault
		if good := w.Report().LastGood.Commit; good != commit {
			t.Errorf("last-good is %s, want %s", good, commit)
		}
	})
}

func TestAJumpOfTheClockNeitherHurriesNorDelaysARestart(t *testing.T) {
	for name, jump := range map[string]time.Duration{"back": -50 * 365 * 24 * time.Hour, "ahead": 50 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.settle(module("sensor"))
				w.machine.set(func() { w.machine.clock = func() time.Time { return time.Now().Add(jump) } })
				w.machine.crash("sensor", 1)
				after(9 * time.Second)
				w.did("exit sensor")
				after(2 * time.Second)
				w.did("restart sensor")
			})
		})
	}
}

func TestAfterABootModulesStartAtOnceAndOffline(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("a", dependsOn("b", schema.ConditionStarted)), module("b"))
		w.stop()
		w.machine.reboot()
		w.repo.set(func() { w.repo.err = errOffline })
		w.start()
		w.didInOrder("restart b", "restart a")
		w.phase(schema.PhaseHealthy)
	})
}

func TestAgentRestartOfflineRestartsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"), module("insight"))
		w.stop()
		w.repo.set(func() { w.repo.err = errOffline })
		w.start()
		after(time.Hour)
		w.did()
		report := w.Report()
		if report.Phase != schema.PhaseHealthy || report.LastDesiredStatus.Code != schema.CodeOffline || report.Modules["sensor"].Evidence == nil {
			t.Errorf("reported %+v", report)
		}
		if w.twin.declared.Revision.Commit != report.Revision.Commit {
			t.Errorf("declared %+v", w.twin.declared.Revision)
		}
	})
}

func TestAfterABootNothingStartsThatIsNoLongerTrusted(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.stop()
		w.machine.reboot()
		w.verifier.err = &signing.RefusedError{Image: image("app"), Reason: "no rule trusts the key any more"}
		w.start()
		after(time.Hour)
		w.did()
		report := w.Report()
		if m := report.Modules["sensor"]; !strings.Contains(m.StatusDescription, "no rule trusts the key any more") {
			t.Errorf("reported of sensor %+v", m)
		}
		if report.LastDesiredStatus.Code != schema.CodeBadConfig {
			t.Errorf("status is %+v", report.LastDesiredStatus)
		}
	})
}

func TestWhatCannotBeRestartedIsMadeAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.set(func() { w.machine.faults["restart"] = -1 })
		w.machine.crash("sensor", 1)
		after(time.Minute)
		w.did("exit sensor", "remove sensor", "start sensor")
	})
}

func TestAnImageThatVanishedIsPulledAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.set(func() { clear(w.machine.disk); clear(w.machine.containers) })
		after(time.Minute)
		w.did("pull app", "start sensor")
	})
}

func TestObservingGoesOnWhenTheRuntimeIsBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.set(func() { w.machine.faults["observe"] = -1 })
		after(time.Hour)
		if s := w.Report().LastDesiredStatus; s.Code != schema.CodeFailed || !strings.Contains(s.Description, "observe containers") {
			t.Errorf("status is %+v", s)
		}
		w.machine.set(func() { w.machine.faults["observe"] = 0 })
		w.machine.crash("sensor", 1)
		after(11 * time.Second)
		w.did("exit sensor", "restart sensor")
		w.phase(schema.PhaseHealthy)
	})
}

func TestNothingStartsBeforeItsTwinIsDeclared(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.twin.fail(errFault)
		w.push(module("sensor", env("2")), module("insight"))
		after(time.Minute)
		w.did()
		w.twin.fail(nil)
		after(10 * time.Second)
		w.did("remove sensor", "start insight", "start sensor")
	})
}

// A revision that changes twins alone replaces nothing that could fail.
func TestARevisionIsNotLastGoodBeforeItIsDeclared(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		w.twin.fail(errFault)
		next := w.push(module("sensor", func(m *schema.Module) { m.Twin.Desired = map[string]any{"interval": "5s"} }))
		after(time.Minute)
		if r := w.Report(); r.LastGood.Commit != good || r.Phase == schema.PhaseHealthy {
			t.Errorf("reported %+v", r)
		}
		w.twin.fail(nil)
		after(time.Minute)
		if r := w.Report(); r.LastGood.Commit != next || r.Phase != schema.PhaseHealthy {
			t.Errorf("reported %+v", r)
		}
		w.did()
	})
}

func TestKicksCollapse(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		before := w.repo.fetches
		w.repo.set(func() { // no fetch comes to its end meanwhile
			for range 1000 {
				w.Kick()
				w.Moved()
			}
		})
		synctest.Wait()
		if n := w.repo.fetches - before; n > 2 {
			t.Errorf("fetched %d times", n)
		}
	})
}

// kubeedge#6269: a status report triggers a reconcile loop.
func TestReportsDoNotFeedThemselves(t *testing.T) {
	inWorld(t, func(w *world) {
		w.twin.mu.Lock()
		w.twin.handed = func() { w.Kick(); w.Moved() }
		w.twin.mu.Unlock()
		w.settle(module("sensor"))
		before := w.twin.count()
		after(24 * time.Hour)
		if n := w.twin.count() - before; n > 0 {
			t.Errorf("%d reports in a day in which nothing happened", n)
		}
	})
}

// aws-greengrass/greengrass-lite#959: 120 GB of log in a night from one error.
func TestAnErrorThatLastsIsLoggedOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.repo.set(func() { w.repo.err = errOffline })
		w.machine.set(func() { w.machine.faults["observe"] = -1 })
		before := w.lines.count()
		after(24 * time.Hour)
		if n := w.lines.count() - before; n != 2 {
			t.Errorf("%d lines in a day:\n%s", n, w.lines)
		}
	})
}

func TestABrokenStateIsRebuiltFromTheHistory(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		w.machine.lives["sensor"] = life{time.Second, 3}
		bad := w.push(module("sensor", env("2")))
		after(2 * time.Second)
		w.machine.set(func() { clear(w.machine.lives) })
		after(time.Minute)
		w.phase(schema.PhaseRolledBack)
		_, err := w.Suspend(reconciler.Request{By: "anna", Reason: "fair"})
		must(t, err)
		w.machine.done()
		w.stop()
		flip(t, filepath.Join(w.StateDir, "state.json"))
		w.repo.set(func() { w.repo.err = errOffline })
		w.start()
		after(time.Hour)
		w.did() // it runs as before
		report := w.Report()
		if report.Revision.Commit != good || report.Phase != schema.PhaseSuspended || report.Order.By != "anna" || report.Refused.Revision.Commit != bad {
			t.Errorf("reported %+v", report)
		}
		if s := w.Report().LastDesiredStatus; s.Code != schema.CodeFailed {
			t.Errorf("status is %+v", s)
		}
		if aside, _ := filepath.Glob(filepath.Join(w.StateDir, "state.json.broken-*")); len(aside) != 1 {
			t.Errorf("set aside: %v", aside)
		}
		if !strings.Contains(w.lines.String(), "the newest good revision, "+good[:12]+", runs in its place") {
			t.Error("the log does not say so")
		}
	})
}

func TestABrokenStateWithNoHistoryIsSetAsideAndNothingTouched(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.stop()
		path := filepath.Join(w.StateDir, "state.json")
		flip(t, path)
		must(t, os.RemoveAll(filepath.Join(w.StateDir, "revisions")))
		w.repo.set(func() { w.repo.err, w.repo.took = errOffline, "" })
		w.machine.set(func() { w.machine.untouched = true })
		w.start()
		after(time.Hour)
		w.phase(schema.PhaseWaiting)
		if s := w.Report().LastDesiredStatus; s.Code != schema.CodeEmpty || !strings.Contains(s.Description, "set aside") {
			t.Errorf("status is %+v", s)
		}
		if aside, _ := filepath.Glob(path + ".broken-*"); len(aside) != 1 {
			t.Errorf("set aside: %v", aside)
		}
		w.repo.set(func() { w.repo.err = nil })
		w.settle(module("sensor")) // adopted, not restarted
		w.did()
	})
}

// flip turns one bit of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.WriteFile(path, b, 0o600))
}
