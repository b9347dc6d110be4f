package reconciler_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// die ends the agent as a panic does: what it does when it is told to stop does
// not come to the disk.
func (w *world) die() {
	w.Helper()
	path := filepath.Join(w.StateDir, "state.json")
	content, err := os.ReadFile(path)
	must(w.T, err)
	w.stop()
	must(w.T, os.WriteFile(path, content, 0o600))
}

// Each agent stages first what the one before was staging. If that ends it, none
// ever lives to fetch the commit that mends it.
func TestACandidateThatEndsTheAgentLetsItsSuccessorCome(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		hostile := make(chan struct{})
		w.machine.set(func() { w.machine.stuck[image("other")] = hostile })
		w.push(module("sensor", from("other")))
		w.repo.set(func() { w.repo.err = errOffline }) // fetching takes longer than the agent lives
		for range 4 {
			w.did("pull hangs other")
			w.die()
			w.start()
		}
		w.did("pull hangs other")
		w.die()
		w.start()
		after(59 * time.Second)
		w.did()
		w.runs("sensor")
		r := w.Report()
		if s := r.LastDesiredStatus; s.Code != schema.CodeFailed || !strings.Contains(s.Description, "5 agents ended while they were at it") {
			t.Errorf("status is %+v", s)
		}
		after(2 * time.Second)
		w.did("pull hangs other") // it may have been the power
		w.die()
		w.start()
		w.repo.set(func() { w.repo.err = nil })
		w.settle(module("sensor", env("2")))
		if s := w.Report().LastDesiredStatus; s.Code != schema.CodeOK {
			t.Errorf("status is %+v", s)
		}
	})
}

// Agents that are stopped in good order prove nothing against a candidate, nor
// do those that could only not reach the registry.
func TestACandidateIsStagedAtOnceAfterManyStarts(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		slow := make(chan struct{})
		w.machine.set(func() { w.machine.stuck[image("other")] = slow })
		w.push(module("sensor", from("other")))
		for range 8 {
			w.did("pull hangs other")
			w.stop()
			w.start()
		}
		w.machine.set(func() { delete(w.machine.stuck, image("other")); w.machine.faults["pull"] = -1 })
		for range 8 {
			w.die()
			w.start()
		}
		w.machine.set(func() { w.machine.faults["pull"] = 0 })
		w.machine.done()
		w.die()
		w.start()
		w.did("pull other", "remove sensor", "start sensor")
	})
}

// Offline is when the network is at fault.
func TestStagingWithoutARuntimeIsNotCalledOffline(t *testing.T) {
	inWorld(t, func(w *world) {
		w.machine.set(func() { w.machine.faults["observe"], w.machine.faults["room"] = -1, -1 })
		w.push(module("sensor"))
		after(time.Minute)
		if s := w.Report().LastDesiredStatus; s.Code != schema.CodeFailed || !strings.Contains(s.Description, "out of order") {
			t.Errorf("status is %+v", s)
		}
		w.machine.set(func() { w.machine.faults["observe"] = 0 })
		after(10 * time.Minute)
		if s := w.Report().LastDesiredStatus; s.Code != schema.CodeOffline {
			t.Errorf("status is %+v", s)
		}
	})
}
