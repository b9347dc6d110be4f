package hub

import (
	"testing"

	"github.com/nats-io/nats.go"
)

// TestAcknowledgementIsNotReflected: JetStream acknowledges with the server's
// own permissions, wherever the publisher wants it.
func TestAcknowledgementIsNotReflected(t *testing.T) {
	c, nc := deviceOf(t, "a")
	spies := map[string]*nats.Subscription{}
	operator := c.operator()
	for _, reply := range []string{"devices.b.rpc.stop", "_INBOX.b.x", "$KV.twins.devices.b", "up.b.out.m.n", "fleet.moved"} {
		spy, err := operator.SubscribeSync(reply)
		if err != nil {
			t.Fatal(err)
		}
		spies[reply] = spy
		operator.Flush()
		nc.PublishRequest("up.a.out.m.n", reply, []byte("x"))
		bad := nats.NewMsg("up.a.out.m.n")
		bad.Reply = reply
		bad.Header.Set("Nats-Expected-Last-Sequence", "77")
		nc.PublishMsg(bad)
	}
	nc.Flush()
	until(t, "stored", func() bool { return c.held() >= 5 })
	for reply, spy := range spies {
		if n, _, _ := spy.Pending(); n != 0 {
			m, _ := spy.NextMsg(1e9)
			t.Errorf("%s got %s", reply, m.Data)
		}
	}
	if got, err := c.hub.twins.Get(testContext(t), "devices.b"); err == nil {
		t.Errorf("twin of b %s", got.Value())
	}
}
