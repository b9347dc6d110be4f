package hub

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

// BenchmarkOutboxIn measures messages of 1 KB from modules onto the device's
// disk, each one answered.
func BenchmarkOutboxIn(b *testing.B) {
	for _, c := range []struct{ modules, inFlight int }{{1, 1}, {1, 500}, {10, 1}, {10, 100}} {
		b.Run(fmt.Sprintf("modules=%d/inflight=%d", c.modules, c.inFlight), func(b *testing.B) {
			g := newGadget(b, "a")
			g.start()
			defer g.close()
			b.ResetTimer()
			var wg sync.WaitGroup
			for m := range c.modules {
				wg.Go(func() { g.pump(b, fmt.Sprintf("m%d", m), b.N/c.modules, c.inFlight) })
			}
			wg.Wait()
			b.ReportMetric(float64(b.N/c.modules*c.modules)/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}

// pump sends count messages of 1 KB with so many unanswered at a time.
func (g *gadget) pump(b *testing.B, module string, count, inFlight int) {
	nc, err := g.leaf.Connect(module)
	if err != nil {
		b.Error(err)
		return
	}
	defer nc.Close()
	inbox := twin.Inbox(g.name, module) + ".x"
	free := make(chan struct{}, inFlight)
	answered := make(chan struct{})
	got := 0
	if _, err := nc.Subscribe(inbox, func(m *nats.Msg) {
		if _, err := twin.ReadAnswer(m.Data); err != nil {
			b.Error(err)
		}
		<-free
		if got++; got == count {
			close(answered)
		}
	}); err != nil {
		b.Error(err)
		return
	}
	body := []byte(strings.Repeat("x", 1024))
	for range count {
		free <- struct{}{}
		if err := nc.PublishRequest(twin.Prefix(g.name, module)+".out.n", inbox, body); err != nil {
			b.Error(err)
			return
		}
	}
	if count > 0 {
		<-answered
	}
}

// BenchmarkOutboxDrain measures what waits on the device's disk, messages of
// 1 KB, onto the disk of a hub on the same machine.
func BenchmarkOutboxDrain(b *testing.B) {
	g := newGadget(b, "a")
	c := newCloud(b, g.entry())
	g.link(c)
	g.proxy.cut()
	g.pump(b, "m", b.N, 500)
	g.proxy.mend()
	for up := false; !up; up, _ = g.leaf.Linked() {
		time.Sleep(time.Millisecond)
	}
	b.ResetTimer()
	g.drained()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}
