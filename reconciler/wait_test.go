package reconciler_test

import (
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// lose takes images from the disk, and has the pull of them hang.
func (w *world) lose(names ...string) {
	for _, name := range names {
		w.hang(name)
		w.machine.set(func() { delete(w.machine.disk, image(name)) })
	}
}

// What has its image's signature on the disk comes up after a boot, though images
// were lost and come over a slow link.
func TestAfterABootNoModuleWaitsForTheDownloadOfAnother(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("a", from("other")), module("b", from("third")), module("c", from("fourth")), module("d", from("fifth")), module("sensor"))
		w.stop()
		w.machine.reboot()
		w.lose("other", "third", "fourth", "fifth")
		w.start()
		after(time.Second)
		w.runs("a", "b", "c", "d", "sensor")
	})
}

// A module whose start failed has its image looked at. That is a moment, and does
// not wait until another image has come.
func TestAStartThatFailedDoesNotWaitForTheDownloadOfAnotherImage(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.repo.commit(schema.Desired{Device: w.Device, Gate: schema.Duration(gate), Keep: []schema.Image{image("other")}, Modules: []schema.Module{module("sensor")}})
		w.Moved()
		after(gate + time.Minute)
		w.stop()
		w.lose("other")
		w.start()
		after(time.Minute)
		w.machine.set(func() { clear(w.machine.containers); w.machine.faults["start"] = 1 })
		w.Kick()
		after(15 * time.Second)
		w.runs("sensor")
	})
}
