package hub

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// BenchmarkIntake measures messages of 1 KB from one device, over its leaf link
// and in batches of which a few are on the way, onto the hub's disk. Device and
// hub share the machine.
func BenchmarkIntake(b *testing.B) {
	for _, inFlight := range []int{1, 4} {
		b.Run(fmt.Sprintf("inflight=%d", inFlight), func(b *testing.B) {
			g := newGadget(b, "a")
			c := newCloud(b, g.entry())
			g.conf.Hub = &schema.HubLink{URL: "nats-leaf://" + c.hub.LeafAddress()}
			g.start()
			defer g.close()
			until(b, "linked", func() bool { up, _ := g.leaf.Linked(); return up })
			nc, err := g.leaf.ConnectHub("sender")
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			b.ResetTimer()
			deliver(b, nc, b.N, inFlight)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}

// deliver sends count messages of 1 KB with so many batches unanswered at a time.
func deliver(b *testing.B, nc *nats.Conn, count, inFlight int) {
	const each = 950 // so that a batch is not larger than it may be
	var items []byte
	for range each {
		items = twin.Item{Count: 1, Module: "sensor", Name: "n", Time: time.Unix(1, 0), Body: make([]byte, 1024)}.Append(items)
	}
	one := len(items) / each
	answers, err := nc.SubscribeSync(twin.Inbox("a", "") + ".answers")
	if err != nil {
		b.Fatal(err)
	}
	sent, settled := 0, 0
	for settled < count {
		for ; sent < count && sent-settled < inFlight*each; sent = min(sent+each, count) {
			n := min(each, count-sent)
			frame := twin.Batch{Lane: "default", Prev: twin.Position{Epoch: "e", Seq: uint64(sent)}, Epoch: "e", From: uint64(sent) + 1}
			if sent == 0 {
				frame.Prev = twin.Position{}
			}
			if err := nc.PublishRequest(twin.UpMessages("a"), answers.Subject, frame.Frame(n, items[:n*one])); err != nil {
				b.Fatal(err)
			}
		}
		m, err := answers.NextMsg(30 * time.Second)
		if err != nil {
			b.Fatal(err)
		}
		s, err := twin.ReadStanding(m.Data)
		if err != nil {
			b.Fatal(err)
		}
		settled = int(s.Seq)
	}
}
