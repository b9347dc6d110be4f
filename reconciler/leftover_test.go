package reconciler_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// holds fails the test unless these images, and no others, are on the disk.
func (w *world) holds(want ...string) {
	w.Helper()
	var got []string
	w.machine.set(func() {
		for image := range w.machine.disk {
			got = append(got, name(image))
		}
	})
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.Fatalf("on the disk is %v, want %v\n%s", got, want, w.lines)
	}
}

// hang has the pull of an image hang, until let is called.
func (w *world) hang(name string) (let func()) {
	stuck := make(chan struct{})
	w.machine.set(func() { w.machine.stuck[image(name)] = stuck })
	return func() {
		w.machine.set(func() { delete(w.machine.stuck, image(name)) })
		close(stuck)
	}
}

// half is a definition that brings other to the disk, and hangs at third.
func half(w *world) []schema.Module {
	w.hang("third")
	return []schema.Module{module("sensor"), module("insight", from("other")), module("video", from("third"))}
}

// pushBroken pushes a commit that does not render.
func (w *world) pushBroken() {
	commit := w.repo.commit(schema.Desired{Device: w.Device})
	w.repo.set(func() { w.repo.broken[commit] = errors.New("modules.sensor.image: conflicting values") })
	w.Moved()
}

// What a candidate brought to the disk goes once nothing needs it: also when what
// came in its place is refused, and no target changes.
func TestWhatADroppedCandidateBroughtIsPrunedSoon(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.push(half(w)...)
		w.holds("app", "other")
		w.pushBroken()
		after(14 * time.Minute) // the commit that mends it may need it
		w.holds("app", "other")
		after(2 * time.Minute)
		w.holds("app")
	})
}

// A suspended device has no candidate.
func TestWhatASuspendedCandidateBroughtIsPrunedSoon(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.push(half(w)...)
		_, err := w.Suspend(anna)
		must(t, err)
		after(time.Minute)
		w.holds("app")
	})
}

// What one candidate brought and the next one needs is not deleted between the
// two, and not downloaded twice.
func TestWhatTheNextCandidateNeedsIsNotPruned(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.push(half(w)...)
		w.machine.done()
		w.hang("fourth")
		w.push(module("sensor"), module("insight", from("other")), module("video", from("fourth")))
		after(time.Hour)
		w.holds("app", "other")
		w.did("pull hangs fourth")
		w.push(module("sensor"), module("insight", from("unsigned")))
		after(time.Minute)
		w.holds("app")
	})
}

// A candidate waits for a signature with what it has on the disk.
func TestWhatAnUnsignedCandidateNeedsIsNotPruned(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.push(half(w)...)
		w.push(module("sensor"), module("insight", from("other")), module("video", from("unsigned")))
		after(time.Hour)
		w.holds("app", "other")
	})
}

// An agent that is started again goes on with what its candidate has on the disk.
func TestWhatACandidateBroughtOutlivesTheAgent(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.push(half(w)...)
		w.machine.done()
		w.stop()
		w.start()
		after(time.Hour)
		w.holds("app", "other")
		if again := strings.Join(w.machine.done(), " "); strings.Contains(again, "pull other") {
			t.Errorf("the runtime did %s", again)
		}
	})
}
