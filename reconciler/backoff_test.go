package reconciler_test

import (
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// The runtime keeps the restarts of a module, and the agent alone knows that it
// has been stable since. With the agent, or the machine, that is lost; it must not
// be that a module which fails once in a month is down for five minutes then.
func TestRestartsOfLongAgoDoNotLengthenTheBackOffOfAnotherAgent(t *testing.T) {
	for name, boot := range map[string]bool{"agent": false, "machine": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.settle(module("sensor"))
				for range 6 {
					w.machine.crash("sensor", 1)
					after(6 * time.Minute)
				}
				after(24 * time.Hour)
				w.stop()
				if boot {
					w.machine.reboot()
				}
				w.start()
				after(time.Minute)
				w.runs("sensor")
				w.machine.crash("sensor", 1)
				after(11 * time.Second)
				w.runs("sensor")
			})
		})
	}
}

// Another agent does not hurry a module that keeps failing.
func TestAnotherAgentGoesOnWithTheBackOff(t *testing.T) {
	inWorld(t, func(w *world) {
		w.settle(module("sensor"))
		w.machine.set(func() { w.machine.lives["sensor"] = life{time.Second, 1} })
		w.machine.crash("sensor", 1)
		after(time.Hour)
		for w.machine.container("sensor").State != schema.StateExited {
			after(time.Second)
		}
		w.stop()
		w.start()
		w.machine.done()
		after(4 * time.Minute)
		w.did()
	})
}
