package reconciler_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

var (
	errRefused     = errors.New("connection refused")
	errUnavailable = errors.New("status 503")
)

// asks gives a module a probe: "startup", "liveness" or "readiness". Three
// failures in a row, ten seconds apart, are failing.
func asks(name string) func(*schema.Module) {
	p := &schema.Probe{
		Exec: &schema.ExecProbe{Command: []string{name}}, Failures: 3,
		Interval: schema.Duration(10 * time.Second), Timeout: schema.Duration(time.Second),
	}
	return func(m *schema.Module) {
		switch name {
		case "startup":
			m.Health.Startup = p
		case "liveness":
			m.Health.Liveness = p
		case "readiness":
			m.Health.Readiness = p
		}
	}
}

func policy(policy string) func(*schema.Module) {
	return func(m *schema.Module) { m.Restart.Policy = policy }
}

// failing is how long a probe of these tests takes to count as failing, at most.
const failing = 40 * time.Second

// answer has a probe answer err from now on: "sensor liveness".
func (w *world) answer(probe string, err error) {
	w.machine.set(func() { w.machine.sick[probe] = err })
}

// asked is how often a probe was made since it was asked for last.
func (w *world) asked(probe string) (n int) {
	w.machine.set(func() { n, w.machine.asked[probe] = w.machine.asked[probe], 0 })
	return n
}

func (w *world) status(module, want, description string) {
	w.Helper()
	synctest.Wait()
	m := w.Report().Modules[module]
	if m.RuntimeStatus != want || !strings.Contains(m.StatusDescription, description) {
		w.Fatalf("%s is %s, %q; want %s, %q\n%s", module, m.RuntimeStatus, m.StatusDescription, want, description, w.lines)
	}
}

// next waits until the runtime is told to do something, for so long, and says
// what that is.
func (w *world) next(within time.Duration, want string) {
	w.Helper()
	var did []string
	for began := time.Now(); len(did) == 0 && time.Since(began) < within; did = w.machine.done() {
		after(100 * time.Millisecond)
	}
	w.equal(did, []string{want})
}

func TestASlowStartIsNoFailure(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		patient := func(m *schema.Module) { m.Health.Startup.Failures = 1000 }
		w.answer("sensor startup", errRefused)
		w.answer("sensor liveness", errRefused)
		commit := w.push(module("sensor", asks("startup"), asks("liveness"), patient))
		after(5 * time.Minute)
		w.phase(schema.PhaseGating)
		w.status("sensor", schema.RuntimeStarting, "startup: connection refused")
		if n := w.asked("sensor liveness"); n > 0 {
			t.Errorf("asked %d times whether it lives before it had started", n)
		}
		w.answer("sensor startup", nil)
		w.answer("sensor liveness", nil)
		w.asked("sensor startup")
		after(12 * time.Second)
		w.status("sensor", schema.RuntimeRunning, "")
		w.phase(schema.PhaseGating) // only now its gate begins
		after(gate)
		w.phase(schema.PhaseHealthy)
		if good := w.Report().LastGood.Commit; good != commit {
			t.Errorf("last-good is %s", good)
		}
		if n := w.asked("sensor startup"); n != 1 {
			t.Errorf("asked %d times whether it has started, after it had", n)
		}
		w.did() // new probes replace nothing
	})
}

func TestAnUnhealthyModuleIsStoppedAndRestarted(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("insight"), module("sensor", asks("liveness")))
		w.answer("sensor liveness", errUnavailable)
		w.next(failing, "stop sensor")
		if c := w.machine.container("sensor"); c.Ended != "unhealthy: liveness: status 503" {
			t.Errorf("stopped because %q", c.Ended)
		}
		w.status("sensor", schema.RuntimeBackoff, "was stopped: unhealthy: liveness: status 503")
		after(12 * time.Second)
		w.did("restart sensor")
		w.status("sensor", schema.RuntimeStarting, "liveness")
		w.answer("sensor liveness", nil)
		after(12 * time.Second)
		w.status("sensor", schema.RuntimeRunning, "")
		w.phase(schema.PhaseHealthy)
	})
}

// Its back-off grows with each restart, as that of a crash does.
func TestAModuleThatStaysUnhealthyIsRestartedForEver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", asks("liveness"), policy(schema.RestartOnUnhealthy)))
		w.answer("sensor liveness", errUnavailable)
		after(24 * time.Hour)
		restarts := strings.Count(strings.Join(w.machine.done(), "\n"), "restart sensor")
		if restarts < 250 || restarts > 290 { // one in five minutes and a half
			t.Errorf("restarted %d times in a day", restarts)
		}
		w.answer("sensor liveness", nil)
		after(6 * time.Minute)
		w.status("sensor", schema.RuntimeRunning, "")
	})
}

func TestWhatIsNotToBeRestartedIsReportedOnly(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("liveness", asks("liveness"), policy(schema.RestartOnFailure)), module("readiness", asks("readiness")))
		w.answer("liveness liveness", errUnavailable)
		w.answer("readiness readiness", errUnavailable)
		after(time.Hour)
		w.did()
		w.status("liveness", schema.RuntimeUnhealthy, "liveness: status 503")
		w.status("readiness", schema.RuntimeUnhealthy, "readiness: status 503")
		w.answer("liveness liveness", nil)
		w.answer("readiness readiness", nil)
		after(12 * time.Second)
		w.status("liveness", schema.RuntimeRunning, "")
		w.status("readiness", schema.RuntimeRunning, "")
	})
}

func TestFewerFailuresThanCountAreNone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", asks("liveness")))
		for range 20 {
			w.answer("sensor liveness", errUnavailable)
			w.asked("sensor liveness")
			for n := 0; n < 2; n += w.asked("sensor liveness") {
				after(time.Second)
			}
			w.answer("sensor liveness", nil)
			after(12 * time.Second)
		}
		w.did()
		w.status("sensor", schema.RuntimeRunning, "")
	})
}

// And the report and the log do not grow by it without bound.
func TestAFlappingModuleDoesNotFloodTheLog(t *testing.T) {
	inWorld(t, func(w *world) {
		fast := func(m *schema.Module) {
			m.Health.Readiness.Failures, m.Health.Readiness.Interval = 1, schema.Duration(100*time.Millisecond)
		}
		w.settle(module("sensor", asks("readiness"), fast))
		lines := w.lines.count()
		for i := range 3000 {
			w.answer("sensor readiness", map[int]error{0: fmt.Errorf("read tcp 127.0.0.1:%d: reset", i)}[i%2])
			after(120 * time.Millisecond)
		}
		if n := w.lines.count() - lines; n == 0 || n > 10 {
			t.Errorf("%d lines in six minutes", n)
		}
		w.did()
	})
}

func TestAModuleWaitsUntilWhatItNeedsIsHealthy(t *testing.T) {
	inWorld(t, func(w *world) {
		w.answer("db readiness", errRefused)
		w.push(module("app", dependsOn("db", schema.ConditionHealthy)), module("db", asks("readiness")), module("other"))
		after(5 * time.Minute)
		w.did("pull app", "start db", "start other")
		w.status("app", schema.RuntimeUnknown, "waits for db to be healthy")
		w.answer("db readiness", nil)
		after(12 * time.Second)
		w.did("start app")
		after(gate)
		w.phase(schema.PhaseHealthy)
		w.answer("db readiness", errRefused) // which ends nobody
		after(time.Hour)
		w.did()
	})
}

// What was found out ends with the agent. Modules do not.
func TestAgentRestartAsksAnewAndRestartsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor", asks("startup"), asks("liveness"), asks("readiness")))
		w.stop()
		w.machine.set(func() { w.machine.hung["sensor startup"] = make(chan struct{}) })
		w.start()
		w.status("sensor", schema.RuntimeStarting, "")
		w.phase(schema.PhaseHealthy)
		after(10 * time.Minute)
		close(w.machine.hung["sensor startup"])
		w.machine.set(func() { delete(w.machine.hung, "sensor startup") })
		after(3 * time.Minute)
		w.status("sensor", schema.RuntimeRunning, "")
		w.did()
		if r := w.Report(); r.LastGood.Commit != good || r.Phase != schema.PhaseHealthy {
			t.Errorf("reported %+v", r)
		}
	})
}

// A prober that never comes back is waited for by nobody, and is one.
func TestAProbeThatHangsPilesUpNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("insight", asks("liveness")), module("sensor", asks("liveness"), asks("readiness")))
		hung := make(chan struct{})
		w.machine.set(func() { w.machine.hung["sensor liveness"] = hung })
		after(time.Minute)
		w.asked("sensor liveness")
		w.answer("sensor readiness", errUnavailable)
		w.machine.crash("insight", 1)
		after(time.Hour)
		if n := w.asked("sensor liveness"); n > 0 {
			t.Errorf("%d more questions beside one that is not answered", n)
		}
		w.did("exit insight", "restart insight")
		w.status("insight", schema.RuntimeRunning, "")
		w.status("sensor", schema.RuntimeUnhealthy, "readiness: status 503") // the other probe goes on
		w.answer("sensor liveness", errUnavailable)
		w.machine.set(func() { delete(w.machine.hung, "sensor liveness") })
		close(hung)
		w.next(failing, "stop sensor")
	})
}

// That nobody could ask is not the module's fault.
func TestAQuestionThatDoesNotReachTheModuleSaysNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", asks("liveness")))
		w.answer("sensor liveness", fmt.Errorf("dial containerd: %w", schema.ErrNotAsked))
		after(time.Hour)
		w.did()
		w.status("sensor", schema.RuntimeRunning, "")
		w.machine.crash("sensor", 1)
		after(time.Minute)
		w.did("exit sensor", "restart sensor")
		w.status("sensor", schema.RuntimeStarting, "dial containerd")
	})
}

// Fifty modules that come up together are not asked in the same moment.
func TestFirstProbesAreSpread(t *testing.T) {
	inWorld(t, func(w *world) {
		var modules []schema.Module
		for i := range 50 {
			modules = append(modules, module(fmt.Sprintf("m%02d", i), asks("readiness")))
		}
		w.settle(modules...)
		w.stop()
		w.machine.set(func() { clear(w.machine.asked) })
		w.start()
		most := 0
		for range 30 {
			together := 0
			for i := range 50 {
				together += w.asked(fmt.Sprintf("m%02d readiness", i))
			}
			most = max(most, together)
			after(100 * time.Millisecond)
		}
		if most > 15 {
			t.Errorf("%d of 50 modules were asked within 100 ms", most)
		}
	})
}

// A probe's definition can change while the module goes on.
func TestNewProbesAreMadeOfTheContainerThatRuns(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor", asks("liveness")))
		w.answer("sensor liveness", errUnavailable)
		commit := w.push(module("sensor", asks("readiness")))
		after(12*time.Second + gate)
		w.did()
		w.phase(schema.PhaseHealthy)
		if good := w.Report().LastGood.Commit; good != commit {
			t.Errorf("last-good is %s, want %s", good, commit)
		}
		w.asked("sensor liveness")
		after(time.Hour)
		if n := w.asked("sensor liveness"); n > 0 {
			t.Errorf("the probe of before was made %d times", n)
		}
	})
}

// What is shown is what the module printed before it ended, also once it runs
// again.
func TestTheLastOutputIsOfTheRunThatEnded(t *testing.T) {
	inWorld(t, func(w *world) {
		output := func() string {
			synctest.Wait()
			return w.Report().Modules["sensor"].Output
		}
		w.settle(module("sensor", asks("liveness"), policy(schema.RestartOnFailure)))
		if o := output(); o != "" {
			t.Errorf("shows %q of a module that never ended", o)
		}
		w.machine.crash("sensor", 1)
		after(time.Minute)
		w.did("exit sensor", "restart sensor")
		if o := output(); o != "process 1 of sensor says goodbye" {
			t.Errorf("shows %q", o)
		}
		w.answer("sensor liveness", errUnavailable)
		after(failing)
		if o := output(); o != "process 2 of sensor says goodbye" {
			t.Errorf("shows %q of a module that is unhealthy", o)
		}
	})
}
