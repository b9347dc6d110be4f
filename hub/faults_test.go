package hub

import (
	"slices"
	"testing"
	"time"
)

// TestOnceAndInOrder has a device send on and on while everything between it
// and the hub's disk fails, again and again, with messages on the way. What the
// device's disk took is in the hub's stream: all of it, in order, once.
func TestOnceAndInOrder(t *testing.T) {
	for name, fault := range map[string]func(g *gadget, c *cloud){
		"link cut":          func(g *gadget, c *cloud) { g.flows(c); g.proxy.cut(); g.proxy.mend() },
		"hub restarted":     func(g *gadget, c *cloud) { g.flows(c); c.stop(); c.start() },
		"agent restarted":   func(g *gadget, c *cloud) { g.flows(c); g.restart() },
		"both ends restart": func(g *gadget, c *cloud) { g.flows(c); c.stop(); g.restart(); c.start() },
		"hub's acks lost": func(g *gadget, c *cloud) {
			g.flows(c)
			g.proxy.silence(toDevice)
			g.proxy.swallowed()
			g.proxy.cut()
			g.proxy.mend()
		},
		"acks lost, restart": func(g *gadget, c *cloud) {
			g.flows(c)
			g.proxy.silence(toDevice)
			g.proxy.swallowed()
			g.proxy.cut()
			g.restart()
			g.proxy.mend()
		},
		"blackhole": func(g *gadget, c *cloud) {
			g.flows(c)
			g.proxy.silence(toDevice)
			g.proxy.silence(toHub)
			g.proxy.swallowed()
			g.proxy.cut()
			g.proxy.mend()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGadget(t, "hannover01")
			c := newCloud(t, g.entry())
			g.link(c)
			const rounds, each = 3, 2000
			for i := range rounds {
				g.proxy.cut() // let them queue, so that there is something to interrupt
				g.say(i*each+1, (i+1)*each)
				g.proxy.mend()
				fault(g, c)
			}
			g.drained()
			if got := c.bodies(g.name); !slices.Equal(got, numbers(1, rounds*each)) {
				t.Errorf("the hub holds %d of %d", len(got), rounds*each)
			}
		})
	}
}

// TestResumeIsQuick measures from the mended link to an empty outbox.
func TestResumeIsQuick(t *testing.T) {
	g := newGadget(t, "hannover01")
	c := newCloud(t, g.entry())
	g.link(c)
	g.say(1, 10)
	g.drained()
	g.proxy.cut()
	g.say(11, 1000)
	g.proxy.mend()
	start := time.Now()
	until(t, "linked", func() bool { up, _ := g.leaf.Linked(); return up })
	linked := time.Now()
	g.drained()
	t.Logf("linked after %v, drained %v later", linked.Sub(start), time.Since(linked))
	if got := c.bodies(g.name); !slices.Equal(got, numbers(1, 1000)) {
		t.Errorf("the hub holds %d", len(got))
	}
}
