package hub

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// TestIotedge6006MessagesGoOnAfterASilentCut: on the way everything is lost for a
// while, no connection is reset, and modules send on. Each message comes once, in
// order. Short cuts are TCP's to get over, after longer ones the link is another.
func TestIotedge6006MessagesGoOnAfterASilentCut(t *testing.T) {
	t.Parallel()
	g := newGadget(t, "hannover01")
	c := newCloud(t, g.entry())
	way := harness.NewWay(t)
	g.conf.Hub = &schema.HubLink{URL: "nats-leaf://" + way.Lead(c.hub.LeafAddress())}
	g.start()
	t.Cleanup(func() { g.close() })
	const each = 500
	said := 0
	say := func() {
		g.say(said+1, said+each)
		said += each
	}
	say()
	g.drained()
	for _, lost := range []func(before int){
		func(int) { time.Sleep(100 * time.Millisecond) },
		func(before int) { until(t, "the device tries anew", func() bool { return way.Attempts() > before }) },
		func(before int) { until(t, "it tries on", func() bool { return way.Attempts() > before+10 }) },
		func(int) { until(t, "the link is down", func() bool { up, _ := g.leaf.Linked(); return !up }) },
	} {
		var saying sync.WaitGroup
		saying.Go(say) // so that some are under way
		before := way.Attempts()
		way.Cut()
		saying.Wait()
		say()
		lost(before)
		way.Mend()
		say()
		g.drained()
	}
	if got := c.bodies(g.name); !slices.Equal(got, numbers(1, said)) {
		t.Errorf("the hub holds %d of %d", len(got), said)
	}
}
