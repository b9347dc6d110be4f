package reconciler_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// A disk has room again once what nothing needs is gone.
func TestRoomIsMadeBeforeADownload(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.settle(module("sensor", from("other")))
		after(time.Minute)
		w.machine.set(func() { w.machine.capacity = 2; w.machine.disk[image("fourth")] = true }) // of a candidate that was dropped
		w.machine.done()
		w.push(module("sensor", from("third")))
		w.did("pull third", "remove sensor", "start sensor")
		w.machine.set(func() {
			if w.machine.disk[image("fourth")] || !w.machine.disk[image("other")] {
				t.Errorf("on the disk: %v", w.machine.disk)
			}
		})
	})
}

func TestNoRoomIsARefusalThatIsTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.settle(module("sensor"))
		w.machine.set(func() { w.machine.capacity = 1 })
		commit := w.push(module("insight", from("other")), module("sensor"))
		after(time.Minute)
		reports := w.twin.count()
		after(time.Hour)
		w.did()
		r := w.Report()
		if r.Refused == nil || r.Refused.Revision.Commit != commit || r.Refused.Phase != schema.PhaseStaging || !strings.Contains(r.Refused.Reason, "1.0 MiB to download") {
			t.Fatalf("reported %+v", r)
		}
		if r.Phase != schema.PhaseHealthy || r.Revision.Commit != good || r.LastDesiredStatus.Code != schema.CodeFailed {
			t.Errorf("reported %+v", r)
		}
		if n := w.twin.count() - reports; n > 70 {
			t.Errorf("%d reports in an hour", n)
		}
		w.machine.set(func() { w.machine.capacity = 2 })
		after(6 * time.Minute)
		w.did("pull other", "start insight")
		if n := strings.Count(w.happened(), "refused"); n != 1 {
			t.Errorf("%d events of one refusal", n)
		}
	})
}

// What fits when asked may not fit any more when written.
func TestADiskThatFillsWhileDownloadingRefuses(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		stuck := make(chan struct{})
		w.machine.set(func() { w.machine.stuck[image("other")] = stuck })
		commit := w.push(module("insight", from("other")), module("sensor"))
		w.machine.set(func() { w.machine.capacity = 1; clear(w.machine.stuck) })
		close(stuck)
		after(time.Minute)
		if r := w.Report().Refused; r == nil || r.Phase != schema.PhaseStaging || r.Revision.Commit != commit {
			t.Fatalf("refused %+v", r)
		}
		w.machine.set(func() { w.machine.capacity = 0 })
		w.Moved()
		w.did("pull hangs other", "pull other", "start insight")
	})
}

func TestImagesToKeepAreVerifiedPulledAndKept(t *testing.T) {
	inWorld(t, func(w *world) {
		w.push()
		commit := w.repo.commit(schema.Desired{Device: w.Device, Gate: schema.Duration(gate), Keep: []schema.Image{image("other")}, Modules: []schema.Module{module("sensor")}})
		w.Moved()
		after(gate + time.Minute)
		if r := w.Report(); r.LastGood.Commit != commit {
			t.Fatalf("reported %+v", r)
		}
		after(time.Hour)
		w.machine.set(func() {
			if !w.machine.disk[image("other")] || w.machine.prunes == 0 {
				t.Errorf("on the disk: %v", w.machine.disk)
			}
		})
		w.repo.commit(schema.Desired{Device: w.Device, Keep: []schema.Image{image("unsigned")}, Modules: []schema.Module{module("sensor")}})
		w.Moved()
		after(time.Minute)
		if r := w.Report().Refused; r == nil || r.Phase != schema.PhaseVerifying || r.Module != "" {
			t.Errorf("refused %+v", r)
		}
	})
}

// What was deleted to make room for one candidate is brought back for the next,
// before anything that runs is touched.
func TestWhatWasDeletedToMakeRoomIsNotTakenForPulled(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		stuck := make(chan struct{})
		w.machine.set(func() { w.machine.stuck[image("third")] = stuck })
		w.push(module("sensor", from("other")), module("insight", from("third"))) // pulls other, and is dropped
		w.machine.set(func() { w.machine.capacity = 1 })
		w.push(module("sensor", from("fourth"))) // has other deleted, and does not fit for all that
		after(time.Minute)
		w.machine.set(func() { w.machine.capacity = 0; w.machine.stuck[image("fourth")] = stuck })
		w.machine.done()
		w.push(module("sensor", from("other")))
		did := slices.DeleteFunc(w.machine.done(), func(entry string) bool { return entry == "pull hangs fourth" })
		w.equal(did, []string{"pull other", "remove sensor", "start sensor"})
	})
}

// What a candidate has on the disk goes before a module stays down for it: an
// image of the target was lost, and there is no room to bring it back.
func TestRoomIsMadeForTheTargetAtTheCostOfACandidate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		let := w.hang("third")
		w.push(module("sensor"), module("insight", from("other")), module("video", from("third")))
		w.machine.set(func() { w.machine.capacity = 2 })
		let()
		after(time.Minute)
		w.holds("app", "other")
		w.machine.set(func() {
			w.machine.capacity = 1
			delete(w.machine.disk, image("app"))
			clear(w.machine.containers)
		})
		w.Kick()
		after(10 * time.Minute)
		w.runs("sensor")
		if r := w.Report().Refused; r == nil || r.Phase != schema.PhaseStaging {
			t.Errorf("refused %+v", r)
		}
	})
}
