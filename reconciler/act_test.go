package reconciler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// many are n modules.
func many(n int, change ...func(*schema.Module)) []schema.Module {
	var modules []schema.Module
	for i := range n {
		modules = append(modules, module(fmt.Sprintf("m%02d", i), change...))
	}
	return modules
}

// nine are modules that take ten seconds each to start.
func nine(w *world, value string) []schema.Module {
	modules := many(9, env(value))
	for _, m := range modules {
		w.machine.lag[m.Name] = 10 * time.Second
	}
	return modules
}

// stubborn has each of the modules take that long to end.
func stubborn(w *world, took time.Duration, modules ...schema.Module) {
	w.machine.set(func() {
		for _, m := range modules {
			w.machine.slow[m.Name] = took
		}
	})
}

// did is how often the runtime did that since it was asked for last.
func did(w *world, what string) (n int) {
	for _, entry := range w.machine.done() {
		if verb(entry) == what {
			n++
		}
	}
	return n
}

// A small device has memory for few starts at once, and none for a pause between
// them.
func TestModulesStartFourAtATime(t *testing.T) {
	inWorld(t, func(w *world) {
		w.push(nine(w, "1")...)
		for _, want := range []int{0, 4, 8, 9} {
			report, running := w.Report(), 0
			for _, m := range report.Modules {
				if m.RuntimeStatus == schema.RuntimeRunning {
					running++
				}
			}
			if running != want {
				t.Fatalf("%d modules run, want %d\n%s", running, want, w.lines)
			}
			after(10*time.Second + 100*time.Millisecond)
		}
	})
}

// What waits for its turn to start is not started when a newer revision has come.
func TestStartsThatWaitAreForgoneForANewerRevision(t *testing.T) {
	inWorld(t, func(w *world) {
		w.push(nine(w, "1")...)
		after(5 * time.Second)
		w.push(nine(w, "2")...)
		after(time.Minute)
		if n := did(w, "start"); n != 4+9 { // those that were under way, and all that are declared now
			t.Errorf("%d modules were started, want 13\n%s", n, w.lines)
		}
	})
}

// A start that hangs costs the module a try, and others a moment.
func TestStartsThatHangDelayOthersForAMoment(t *testing.T) {
	inWorld(t, func(w *world) {
		hang := many(4)
		for _, m := range hang {
			w.machine.lag[m.Name] = 100 * time.Second
		}
		w.push(hang...)
		after(time.Second)
		w.push(append(hang, module("sensor"))...)
		after(20 * time.Second)
		w.runs("sensor")
	})
}

// A module that crashes is restarted at once, however many a deployment starts.
func TestARestartDoesNotWaitForTheStartsOfADeployment(t *testing.T) {
	inWorld(t, func(w *world) {
		quick := func(m *schema.Module) { m.Restart.Min = 0 }
		w.settle(module("sensor", quick))
		w.push(append(nine(w, "1"), module("sensor", quick))...)
		after(time.Second)
		w.machine.crash("sensor", 1)
		w.runs("sensor")
	})
}

// Fifty modules that are removed at once are not fifty processes of runc at once.
func TestModulesEndSixteenAtATime(t *testing.T) {
	inWorld(t, func(w *world) {
		modules := many(40)
		w.settle(modules...)
		stubborn(w, 500*time.Millisecond, modules...)
		w.push()
		for i, want := range []int{0, 16, 16, 8, 0} {
			if n := did(w, "remove"); n != want {
				t.Fatalf("%d modules were removed in turn %d, want %d\n%s", n, i, want, w.lines)
			}
			after(510 * time.Millisecond)
		}
	})
}

// To wait for a module to end costs nothing, so others do not wait for it: sixty
// modules that do not heed their signal for ten seconds are gone in little more,
// and one that has an hour to stop delays none.
func TestSlowStopsDoNotDelayOthersForLong(t *testing.T) {
	inWorld(t, func(w *world) {
		slow, slower := many(60), module("slower")
		w.settle(append(slow, slower)...)
		stubborn(w, 10*time.Second, slow...)
		stubborn(w, time.Hour, slower)
		began := time.Now()
		w.push()
		for len(w.machine.all()) > 1 {
			after(100 * time.Millisecond)
		}
		if took := time.Since(began); took > 14*time.Second {
			t.Errorf("60 modules that take 10 s to end were gone after %v\n%s", took, w.lines)
		}
		w.runs("slower")
	})
}

// What waits for its turn to be removed stays when a newer revision wants it.
func TestRemovalsThatWaitAreForgoneForANewerRevision(t *testing.T) {
	inWorld(t, func(w *world) {
		modules := many(40)
		w.settle(modules...)
		stubborn(w, 10*time.Second, modules...)
		w.push()
		after(500 * time.Millisecond)
		w.push(modules...)
		after(time.Minute)
		if n := did(w, "remove"); n != 16 {
			t.Errorf("%d modules were removed, want 16\n%s", n, w.lines)
		}
	})
}

// A module that waits for its turn to be removed works meanwhile.
func TestDowntimeBeginsWithTheTurn(t *testing.T) {
	inWorld(t, func(w *world) {
		modules := many(17)
		w.settle(modules...)
		stubborn(w, 900*time.Millisecond, modules...)
		w.push(many(17, env("2"))...)
		after(time.Minute)
		shortest := time.Hour
		for _, m := range modules {
			shortest = min(shortest, w.Downtime(m.Name))
		}
		if shortest != 900*time.Millisecond {
			t.Errorf("the shortest downtime is %v, want that of the module that was removed last", shortest)
		}
	})
}

// Starts follow the last of the removals that they wait for at once, however often
// was looked while those went on.
func TestNobodyRestsBetweenTheLastRemovalAndTheStarts(t *testing.T) {
	inWorld(t, func(w *world) {
		modules := many(40)
		w.settle(modules...)
		w.machine.set(func() { w.machine.blink = 100 * time.Millisecond })
		for i, m := range modules {
			w.machine.set(func() { w.machine.slow[m.Name] = 500*time.Millisecond + time.Duration(i)*50*time.Millisecond })
		}
		w.push(many(40, env("2"))...)
		after(time.Minute)
		rest := time.Hour // of the one that was removed last
		for _, m := range modules {
			rest = min(rest, w.Downtime(m.Name)-w.machine.slow[m.Name])
		}
		if rest > 200*time.Millisecond { // it takes a look or two
			t.Errorf("between the last removal and the starts were %v\n%s", rest, w.lines)
		}
	})
}
