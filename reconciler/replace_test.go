package reconciler_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

func startThenStop(m *schema.Module) { m.Update.Strategy = schema.UpdateStartThenStop }

// downtime is for how long a module was down when it was replaced last.
func (w *world) downtime(module string) time.Duration {
	synctest.Wait()
	return w.Downtime(module)
}

func TestStartThenStopLeavesNoGap(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", startThenStop, env("1")))
		w.push(module("sensor", startThenStop, env("2")))
		w.didInOrder("start sensor")
		after(gate + time.Second)
		w.didInOrder("remove sensor")
		w.phase(schema.PhaseHealthy)
		if d := w.downtime("sensor"); d != 0 {
			t.Errorf("down for %v", d)
		}
		w.machine.container("sensor")
	})
}

func TestStartThenStopWaitsUntilTheNewOneIsHealthy(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", startThenStop, asks("readiness"), env("1")))
		w.answer("sensor readiness", errRefused)
		w.push(module("sensor", startThenStop, asks("readiness"), env("2")))
		after(5 * time.Minute)
		w.didInOrder("start sensor")
		w.runs("sensor", "sensor")
		w.phase(schema.PhaseSwitching)
		w.status("sensor", schema.RuntimeUnhealthy, "readiness: connection refused") // what is said is of the new one
		w.answer("sensor readiness", nil)
		after(12 * time.Second)
		w.didInOrder("remove sensor")
		after(gate)
		w.phase(schema.PhaseHealthy)
	})
}

// A new one that crashes at once proved nothing by running: the old one goes on
// all the while.
func TestStartThenStopWithoutProbesKeepsTheOldOneForTheGate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", startThenStop, env("1")))
		old := w.machine.container("sensor")
		w.machine.set(func() { w.machine.lives["sensor"] = life{gate - time.Second, 1} })
		bad := w.push(module("sensor", startThenStop, env("2")))
		after(gate - 2*time.Second)
		w.runs("sensor", "sensor")
		after(5 * time.Second)
		w.didInOrder("start sensor", "exit sensor", "remove sensor")
		w.phase(schema.PhaseRolledBack)
		if r := w.Report().Refused; r == nil || r.Revision.Commit != bad {
			t.Errorf("refused %+v", r)
		}
		if c := w.machine.container("sensor"); c != old {
			t.Errorf("was %+v, is %+v", old, c)
		}
		if d := w.downtime("sensor"); d != 0 {
			t.Errorf("down for %v", d)
		}
	})
}

func TestStartThenStopGoesBackWithNoGap(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", startThenStop, asks("liveness"), env("1")))
		old := w.machine.container("sensor")
		w.answer("sensor liveness", errUnavailable)
		bad := w.push(module("sensor", startThenStop, asks("liveness"), env("2")))
		for began := time.Now(); w.Report().Refused == nil && time.Since(began) < failing; {
			after(100 * time.Millisecond)
		}
		if r := w.Report().Refused; r == nil || r.Revision.Commit != bad {
			t.Fatalf("refused %+v", r)
		}
		w.answer("sensor liveness", nil)
		after(failing)
		w.didInOrder("start sensor", "remove sensor")
		w.phase(schema.PhaseRolledBack)
		if c := w.machine.container("sensor"); c != old {
			t.Errorf("was %+v, is %+v", old, c)
		}
	})
}

// The new one is restarted as ever while the old one takes its time to end.
func TestTheNewOneIsRestartedWhileTheOldOneEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", startThenStop, env("1")), module("db"))
		w.machine.set(func() { w.machine.slow["sensor"] = time.Hour })
		w.push(module("sensor", startThenStop, env("2")), module("db"))
		after(2 * gate)
		w.phase(schema.PhaseHealthy) // the new one is healthy, and what ends does not count
		for _, c := range w.machine.all() {
			if c.Module == "sensor" && c.Commit == w.Report().Revision.Commit {
				w.machine.end(c.ID, c.PID, 1)
			}
		}
		after(12 * time.Second)
		w.did("start sensor", "exit sensor", "restart sensor")
		after(time.Hour)
		w.did("remove sensor")
		w.machine.container("sensor")
	})
}

// A newer commit in the middle leaves two, not three.
func TestANewerCommitReplacesTheOneThatIsNotHealthyYet(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", startThenStop, asks("readiness"), env("1")))
		w.answer("sensor readiness", errRefused)
		w.push(module("sensor", startThenStop, asks("readiness"), env("2")))
		after(time.Minute)
		w.didInOrder("start sensor")
		w.push(module("sensor", startThenStop, asks("readiness"), env("3")))
		w.didInOrder("remove sensor", "start sensor")
		w.runs("sensor", "sensor")
		w.answer("sensor readiness", nil)
		after(12*time.Second + gate)
		w.phase(schema.PhaseHealthy)
		w.machine.container("sensor")
	})
}

func TestTheDowntimeOfAReplacementIsMeasured(t *testing.T) {
	inWorld(t, func(w *world) {
		w.deadline = time.Hour
		w.settle(module("sensor", env("1")))
		if d := w.downtime("sensor"); d != 0 {
			t.Errorf("down for %v before it was ever replaced", d)
		}
		w.machine.set(func() { w.machine.slow["sensor"] = 7 * time.Second })
		w.push(module("sensor", env("2")))
		after(10 * time.Second)
		if d := w.downtime("sensor"); d != 7*time.Second {
			t.Errorf("down for %v while its container took 7s to end", d)
		}
		w.machine.set(func() { delete(w.machine.slow, "sensor") })
		w.machine.crash("sensor", 1)
		synctest.Wait()
	})
	inWorld(t, func(w *world) { // it was down before
		w.settle(module("sensor", env("1"), policy(schema.RestartNever)))
		w.machine.crash("sensor", 1)
		after(time.Minute)
		w.push(module("sensor", env("2")))
		if d := w.downtime("sensor"); d != time.Minute {
			t.Errorf("down for %v, want 1m", d)
		}
	})
}

func TestModulesEndInTheReverseOrderOfTheirDependencies(t *testing.T) {
	inWorld(t, func(w *world) {
		w.deadline = time.Hour
		modules := []schema.Module{
			module("app", dependsOn("db", schema.ConditionStarted)), module("db"),
			module("other"), module("web", dependsOn("app", schema.ConditionStarted)),
		}
		w.settle(modules...)
		w.machine.set(func() { w.machine.slow["web"] = time.Minute; w.machine.slow["app"] = time.Minute })
		w.push()
		w.did("remove other") // which nobody depends on
		after(30 * time.Second)
		w.runs("app", "db", "web")
		after(31 * time.Second)
		w.did("remove web")
		after(time.Minute)
		w.didInOrder("remove app", "remove db")
	})
}

// What cannot be removed does not keep for ever what it depends on.
func TestARemovalThatFailsIsNotWaitedForForEver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("app", dependsOn("db", schema.ConditionStarted)), module("db"))
		w.machine.set(func() { w.machine.faults["remove"] = 3 })
		w.push()
		after(29 * time.Second)
		w.did()
		after(2 * time.Second)
		w.did("remove db")
		after(time.Minute)
		w.did("remove app")
	})
}

func TestWhatDependsOnAReplacedModuleGoesOn(t *testing.T) {
	inWorld(t, func(w *world) {
		w.push(module("app", dependsOn("db", schema.ConditionHealthy)), module("db", env("1")))
		after(3 * gate)
		w.phase(schema.PhaseHealthy)
		w.machine.done()
		w.push(module("app", dependsOn("db", schema.ConditionHealthy)), module("db", env("2")))
		after(time.Hour)
		w.did("remove db", "start db")
	})
}

func TestIndependentModulesStartSideBySide(t *testing.T) {
	inWorld(t, func(w *world) {
		w.machine.set(func() { w.machine.lag["a"] = time.Minute })
		w.push(
			module("a"), module("a2", dependsOn("a", schema.ConditionStarted)),
			module("b"), module("b2", dependsOn("b", schema.ConditionStarted)),
		)
		w.did("pull app", "start b", "start b2")
		after(time.Minute)
		w.didInOrder("start a", "start a2")
	})
}

func TestWhatIsPausedGoesOn(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		was := w.machine.container("sensor")
		w.machine.pause(was.ID)
		w.did("resume sensor")
		if is := w.machine.container("sensor"); is != was {
			t.Errorf("was %+v, is %+v", was, is)
		}
	})
}

func TestWhatWasChangedBehindOurBackIsMadeAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		id := w.machine.container("sensor").ID
		w.machine.set(func() { w.machine.containers[id].Drift = "memory limit is 0, not 64Mi" })
		w.Kick()
		w.didInOrder("remove sensor", "start sensor")
		if !strings.Contains(w.lines.String(), `reason="drift: memory limit is 0, not 64Mi"`) {
			t.Errorf("no reason in the log:\n%s", w.lines)
		}
	})
}

// Somebody else may want it his way for ever. The module is not replaced without
// end.
func TestDriftThatComesBackIsMendedWithABackOff(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		drift := func() {
			w.machine.set(func() {
				for _, c := range w.machine.containers {
					c.Drift = "memory limit is 0, not 64Mi"
				}
			})
			w.Kick()
		}
		mended := 0
		for range 4 * 60 * 60 {
			drift()
			after(time.Second)
			if slices.Contains(w.machine.done(), "remove sensor") {
				mended++
			}
		}
		if mended < 48 || mended > 55 { // one in five minutes
			t.Errorf("mended %d times in four hours", mended)
		}
		after(20 * time.Minute)
		w.machine.done()
		drift()
		w.didInOrder("remove sensor", "start sensor") // at once again
	})
}

// A process can go without an exit that anybody saw.
func TestAProcessThatVanishesIsRestartedWithItsBackOff(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		for range 3 {
			w.machine.reboot()
			w.Kick()
			after(5 * time.Second)
			w.did()
			w.status("sensor", schema.RuntimeBackoff, "lost its process")
			after(40 * time.Second)
			w.did("restart sensor")
		}
	})
}

func TestWithoutAFirstWaitAModuleRestartsAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", func(m *schema.Module) { m.Restart.Min = 0 }))
		crash := func(waits ...time.Duration) {
			for _, wait := range waits {
				w.machine.crash("sensor", 1)
				synctest.Wait()
				if wait > 0 {
					time.Sleep(wait - time.Millisecond)
					w.did("exit sensor")
					after(time.Millisecond)
					w.did("restart sensor")
				} else {
					w.did("exit sensor", "restart sensor")
				}
			}
		}
		crash(0, time.Second, 2*time.Second, 4*time.Second)
		after(11 * time.Minute)
		crash(0, time.Second)
	})
}

// The revision that failed may be what keeps last-good from being healthy.
func TestTheOneThatFailedDoesNotGoOnBesideLastGood(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", startThenStop, asks("readiness"), env("1")))
		old := w.machine.container("sensor")
		w.answer("sensor readiness", errUnavailable) // for both from here on
		w.push(module("sensor", startThenStop, asks("readiness"), env("2")))
		after(11 * time.Minute)
		w.didInOrder("start sensor", "remove sensor")
		if c := w.machine.container("sensor"); c.ID != old.ID {
			t.Errorf("runs %+v", c)
		}
		w.phase(schema.PhaseRolledBack)
		w.status("sensor", schema.RuntimeUnhealthy, "readiness: status 503")
	})
}

// Without a last-good nothing ends a trial that failed.
func TestTheOneThatRanLongerDoesNotGoOnForEver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.answer("sensor readiness", errUnavailable)
		w.push(module("sensor", startThenStop, asks("readiness"), env("1")))
		w.push(module("sensor", startThenStop, asks("readiness"), env("2")))
		after(9 * time.Minute)
		w.runs("sensor", "sensor")
		after(2 * time.Minute)
		w.runs("sensor")
		if c := w.machine.container("sensor"); c.Commit != w.Report().Revision.Commit {
			t.Errorf("runs %+v", c)
		}
	})
}
