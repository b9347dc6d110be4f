package uplink

import (
	"testing"
	"time"
)

// TestADiskThatIsOlderThanTheHubGetsANewEpoch: a device was put back to a copy of its
// disk. What it says from then on would have the names of what it said before, and be
// taken for that.
func TestADiskThatIsOlderThanTheHubGetsANewEpoch(t *testing.T) {
	for name, meanwhile := range map[string]func(w *world, q *fakeQueue){
		"the hub holds more of the epoch": func(w *world, q *fakeQueue) { q.store(4) },
		"the hub is in a later epoch":     func(w *world, q *fakeQueue) { q.wipe(); q.store(2) },
	} {
		t.Run(name, func(t *testing.T) {
			w := plainWorld(Lane{Name: "l0"})
			l := w.lanes[0]
			turns := func() {
				for range 20 {
					w.turn(100 * time.Millisecond)
				}
			}
			l.queue.store(4)
			turns()
			l.copy = l.queue.copy()
			meanwhile(w, l.queue)
			turns()
			before := len(w.hub.log)
			w.boot()
			l.queue.goBack(l.copy)
			turns()
			first := uint64(len(l.names))
			l.queue.store(4)
			turns()
			came := map[uint64]int{}
			for _, e := range w.hub.log[before:] {
				if e.epoch == l.copy.queue.epoch {
					t.Errorf("%d to %d came under the names of the old epoch", e.From, e.To)
				}
				if e.Reason == "" {
					came[e.id]++
				}
			}
			for id := first; id < first+4; id++ {
				if came[id] != 1 {
					t.Errorf("message %d came %d times", id, came[id])
				}
			}
			if len(w.warned) == 0 {
				t.Error("nobody is told")
			}
		})
	}
}
