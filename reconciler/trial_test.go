package reconciler_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

func TestAModuleThatNeverComesUpFailsItsTrial(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor", asks("startup"), env("1")))
		w.answer("sensor startup", errRefused)
		w.push(module("sensor", asks("startup"), env("2")))
		w.did("remove sensor", "start sensor")
		after(failing)
		w.phase(schema.PhaseRolledBack)
		report := w.Report()
		if r := report.Refused; r.Reason != "sensor is unhealthy: startup: connection refused" || r.Output != "process 2 of sensor says goodbye" {
			t.Errorf("refused %+v", r)
		}
		if report.Revision.Commit != good {
			t.Errorf("runs %s", report.Revision.Commit)
		}
	})
}

// A module that comes and goes is not healthy for a gate, however often it is
// looked at while it is.
func TestAFlappingModuleFailsItsTrial(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor", env("1")))
		once := func(m *schema.Module) { m.Health.Readiness.Failures = 1 }
		bad := w.push(module("sensor", asks("readiness"), once, env("2")))
		for up := true; w.Report().Revision.Commit == bad; up = !up {
			w.answer("sensor readiness", map[bool]error{false: errUnavailable}[up])
			after(15 * time.Second)
			if r := w.Report(); r.LastGood.Commit != good {
				t.Fatalf("last-good is %s", r.LastGood.Commit)
			}
		}
		if r := w.Report().Refused; r == nil || !strings.HasPrefix(r.Reason, "sensor was not healthy within 10m0s") {
			t.Errorf("refused %+v", r)
		}
	})
}

func TestTheDeadlineNamesTheCause(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("camera", env("1")), module("db"))
		w.answer("db readiness", errRefused)
		bad := w.push(module("camera", dependsOn("db", schema.ConditionHealthy), env("2")), module("db", asks("readiness"), env("2")))
		after(9 * time.Minute)
		w.phase(schema.PhaseSwitching)
		after(time.Minute + time.Second)
		w.phase(schema.PhaseRolledBack)
		report := w.Report()
		if r := report.Refused; r.Revision.Commit != bad || r.Module != "db" || r.Reason != "db was not healthy within 10m0s: is not ready: readiness: connection refused" {
			t.Errorf("refused %+v", r)
		}
		if report.Revision.Commit != good {
			t.Errorf("runs %s", report.Revision.Commit)
		}
	})
}

func TestWithNoLastGoodADeadlineIsNoEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		w.answer("sensor startup", errRefused)
		patient := func(m *schema.Module) { m.Health.Startup.Failures = 1000 }
		w.push(module("sensor", asks("startup"), patient))
		after(time.Hour)
		if s := w.Report().LastDesiredStatus; s.Code != schema.CodeFailed || !strings.Contains(s.Description, "sensor was not healthy within 10m0s") {
			t.Errorf("status is %+v", s)
		}
		w.answer("sensor startup", nil)
		after(12*time.Second + gate)
		w.phase(schema.PhaseHealthy)
	})
}

// An agent that starts during a trial does not take restarts of before for some
// of the trial.
func TestAgentRestartDuringATrialOfProbesAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		for range 3 {
			w.machine.crash("sensor", 1)
			after(2 * time.Minute)
		}
		w.push(module("sensor", asks("liveness")))
		w.stop()
		w.start()
		after(2 * time.Minute)
		w.phase(schema.PhaseHealthy)
		if r := w.Report(); r.Refused != nil {
			t.Errorf("refused %+v", r.Refused)
		}
	})
}

// The wall clock is nobody's business: not of gates, probes, back-offs nor
// deadlines.
func TestAJumpOfTheClockChangesNoVerdict(t *testing.T) {
	for name, clock := range map[string]time.Time{"1970": time.Unix(0, 0), "2082": time.Date(2082, 1, 1, 0, 0, 0, 0, time.UTC)} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.settle(module("crashes", asks("liveness")), module("sensor"))
				w.machine.crash("crashes", 1)
				began := time.Now()
				w.machine.set(func() { w.machine.clock = func() time.Time { return clock.Add(time.Since(began)) } })
				commit := w.push(module("crashes", asks("liveness")), module("sensor", asks("readiness"), env("2")))
				after(gate / 2)
				w.phase(schema.PhaseGating)
				w.machine.set(func() { w.machine.clock = time.Now })
				after(gate)
				w.phase(schema.PhaseHealthy)
				if good := w.Report().LastGood.Commit; good != commit {
					t.Errorf("last-good is %s, want %s", good, commit)
				}
				w.didInAnyOrder("exit crashes", "remove sensor", "restart crashes", "start sensor")
			})
		})
	}
}

// A definition whose twins the leaf refuses changes no module, and is not on
// trial for ever.
func TestARevisionWhoseTwinsCannotBeDeclaredIsRolledBack(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		w.twin.fail(errRefused)
		bad := w.push(module("sensor", func(m *schema.Module) { m.Twin.Desired = map[string]any{"rate": 2} }))
		after(9 * time.Minute)
		w.phase(schema.PhaseGating)
		after(time.Minute + time.Second)
		w.twin.fail(nil)
		after(time.Minute)
		w.phase(schema.PhaseRolledBack)
		r := w.Report()
		if r.Revision.Commit != good || r.Refused.Revision.Commit != bad || !strings.Contains(r.Refused.Reason, "declare the twins of revision "+bad[:12]+": connection refused") {
			t.Errorf("reported %+v", r.Refused)
		}
		w.did()
	})
}

// What is seen running when a look at containerd begins may have ended when the look
// has: on a busy device that takes long.
func TestASlowLookDoesNotPassAGate(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor", env("1")))
		w.machine.set(func() { w.machine.lives["sensor"] = life{gate - time.Second, 3} })
		w.push(module("sensor", env("2")))
		w.did("remove sensor", "start sensor")
		w.machine.set(func() { w.machine.blink = 3 * time.Second })
		for range 2 * gate / time.Second {
			after(time.Second)
			w.Kick()
		}
		w.phase(schema.PhaseRolledBack)
		if r := w.Report(); r.LastGood.Commit != good {
			t.Errorf("a module that ended within its gate is last-good: %+v", r)
		}
	})
}
