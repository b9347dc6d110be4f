package leaf

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// TestHostileFloods: while a module does one of these things as fast as it can,
// another gets answer upon answer.
func TestHostileFloods(t *testing.T) {
	h := newHostile(t)
	h.declare(h.leaf, allowed("evil", schema.Allow{Call: []string{"victim/*"}, Publish: []string{"plant.>"}}, "victim"))
	address := strings.TrimPrefix(h.leaf.ClientURL(), "nats://")
	inbox := twin.Inbox("d1", "evil") + ".r"
	huge := []byte(`{"a":"` + strings.Repeat("x", twin.MaxPatch-16) + `"}`)
	deep := []byte(strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000))
	ask := func(subject string, body []byte) func(*nats.Conn, int) error {
		return func(c *nats.Conn, _ int) error { return c.PublishRequest(subject, inbox, body) }
	}
	raw := func(bytes string) func(*nats.Conn, int) error {
		return func(*nats.Conn, int) error {
			c, err := net.Dial("tcp", address)
			if err == nil {
				_, _ = c.Write([]byte(bytes))
				c.Close()
			}
			return nil
		}
	}
	for name, flood := range map[string]func(*nats.Conn, int) error{
		"gets": ask(evil+".twin.get", nil),
		"reports": func(c *nats.Conn, i int) error {
			return c.PublishRequest(evil+".twin.reported", inbox, fmt.Appendf(nil, `{"i":%d}`, i))
		},
		"huge": ask(evil+".twin.reported", huge),
		"deep": ask(evil+".twin.reported", deep),
		"replace": func(c *nats.Conn, i int) error {
			return c.PublishRequest(evil+".twin.replace", inbox, fmt.Appendf(nil, `{"i":%d}`, i))
		},
		"unknown": ask(evil+".twin.what", nil),
		"out":     ask(evil+".out.x", make([]byte, 64<<10)),
		"hub":     ask(evil+".hub.weather", nil),
		"calls":   ask(evil+".call.victim.nothing", nil),
		"refused": ask("$JS.API.STREAM.NAMES", nil),
		"victim":  ask(victim+".twin.reported", []byte(`{"hacked":true}`)),
		"subscribe": func(c *nats.Conn, i int) error {
			sub, err := c.SubscribeSync(fmt.Sprintf("%s.in.x%d", evil, i))
			if err == nil {
				_ = sub.Unsubscribe()
			}
			return nil
		},
		"refused subscribe": func(c *nats.Conn, i int) error {
			sub, err := c.SubscribeSync(fmt.Sprintf("%s.in.x%d", victim, i))
			if err == nil {
				_ = sub.Unsubscribe()
			}
			return nil
		},
		"trace": func(c *nats.Conn, _ int) error {
			return c.PublishMsg(&nats.Msg{Subject: evil + ".out.x", Header: nats.Header{"Nats-Trace-Dest": {victim + ".in.x"}}})
		},
		"connect": func(*nats.Conn, int) error {
			if c, err := h.dial(h.leaf.ClientURL(), "evil", nats.NoReconnect()); err == nil {
				c.Close()
			}
			return nil
		},
		"pings":             raw(strings.Repeat("PING\r\n", 1000)),
		"challenges":        raw(strings.Repeat(`CONNECT {"verbose":true,"nkey":"U","sig":"x"}`+"\r\n", 100)),
		"connect and leave": raw(""),
		"garbage":           raw("\x16\x03\x01\x00\r\nPUB x 99999999999\r\n"),
		"connect as nobody": raw(`CONNECT {"nkey":"U","sig":"x"}` + "\r\nPING\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			conn := h.module(h.leaf, "evil")
			defer conn.Close()
			ctx, stop := context.WithCancel(t.Context())
			var wait sync.WaitGroup
			for range 2 {
				wait.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						if err := flood(conn, i); err != nil {
							time.Sleep(time.Millisecond) // cut off, and back soon
						}
					}
				})
			}
			good := h.module(h.leaf, "victim")
			defer good.Close()
			for i := range 4 {
				if _, err := report(t, good, "victim", fmt.Sprintf(`{"flood":%q,"i":%d}`, name, i)); err != nil {
					t.Errorf("update %d: %v", i, err)
				}
			}
			stop()
			wait.Wait()
			if get(t, good, "victim").Properties.Reported.Values["hacked"] != nil {
				t.Error("the victim's twin was changed")
			}
		})
	}
}

// TestHalfOpenConnections: they say nothing, and are gone before long; nobody
// else is kept out meanwhile.
func TestHalfOpenConnections(t *testing.T) {
	t.Parallel() // it waits
	h := newHostile(t)
	var silent []net.Conn
	for range 1000 {
		c, err := net.Dial("tcp", strings.TrimPrefix(h.leaf.ClientURL(), "nats://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	h.unharmed()
	for _, c := range silent {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Fatalf("a connection that says nothing stays: %v", err)
		}
	}
	h.unharmed()
}

// reflections are subjects at which an answer would do harm.
var reflections = []string{
	victim + ".in.x", victim + ".twin.desired", victim + ".rpc.x",
	evil + ".twin.desired", evil + ".in.x", evil + ".rpc.x",
	"devices.d1.rpc.suspend", "devices.d1.rpc.rollback", "devices.d1.twin.reported",
	"$JS.API.STREAM.DELETE.S", "$JS.d1.API.STREAM.PURGE.S", "$JS.API.STREAM.MSG.DELETE.S", "$OUTBOX.OUTBOX_hub", "$SYS.REQ.SERVER.PING", "$KV.b.k", "$O.b", "$SRV.PING",
	"up.d1.messages", "messages.d1.hub.x", "fleet.moved", "_INBOX.devices.d1.modules.victim.x", "_INBOX.d12.x", "_R_.x",
}

// ownReflections are those where the server lets whoever answers publish, since
// they are its own.
var ownReflections = []string{victim + ".twin.reported", victim + ".twin.replace"}

// TestNothingIsReflected: an answer that a module asks for does not go where
// only somebody else may publish, whoever gives it: the agent, or another module
// that was called, or one that answers on a subject that both are allowed.
func TestNothingIsReflected(t *testing.T) {
	h := newHostile(t)
	h.leaf.Close()
	h.config.Grants = schema.Grants{Publish: []string{"plant.>"}, Subscribe: []string{"plant.>"}}
	h.leaf = h.open()
	d := allowed("evil", schema.Allow{Call: []string{"victim/speed"}, Publish: []string{"plant.>"}}, "victim")
	d.Modules[1].Identity.Allow = schema.Allow{Subscribe: []string{"plant.>"}}
	h.declare(h.leaf, d)
	js, _ := h.stream(h.leaf)
	if err := storeIn(js, []byte("kept")); err != nil {
		t.Fatal(err)
	}
	spying, err := h.leaf.Connect("spy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(spying.Close)
	seen := make(chan string, 1<<14)
	if _, err := spying.Subscribe(">", func(m *nats.Msg) { seen <- m.Subject }); err != nil {
		t.Fatal(err)
	}
	for _, private := range []string{"$JS.>", "$SYS.>", "$SRV.>"} { // which > does not show
		if _, err := spying.Subscribe(private, func(m *nats.Msg) { seen <- m.Subject }); err != nil {
			t.Fatal(err)
		}
	}
	// The victim answers everything, as stock services do, with what it was asked.
	honest := h.module(h.leaf, "victim")
	answers := make(chan struct{}, 1<<12)
	for _, subject := range []string{"plant.>", victim + ".rpc.>", victim + ".in.>"} {
		if _, err := honest.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond(m.Data); answers <- struct{}{} }); err != nil {
			t.Fatal(err)
		}
	}
	bad := h.module(h.leaf, "evil")
	if honest.Flush() != nil || spying.Flush() != nil {
		t.Fatal("no connection")
	}
	asks := []string{
		evil + ".twin.get", evil + ".twin.reported", evil + ".twin.replace", evil + ".twin.x", evil + ".out.x", evil + ".hub.weather",
		evil + ".call.victim.speed", "plant.speed",
	}
	for _, reply := range append(ownReflections, reflections...) {
		for _, subject := range asks {
			if err := bad.PublishRequest(subject, reply, []byte(`{"hacked":true}`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := bad.Flush(); err != nil {
		t.Fatal(err)
	}
	// What is asked properly behind it is answered, by the agent and by the victim.
	if m, err := bad.Request(evil+".call.victim.speed", []byte("5"), patience); err != nil || string(m.Data) != "5" {
		t.Errorf("a call: %v, %v", m, err)
	}
	for range len(reflections) + len(ownReflections) { // on plant.speed
		<-answers
	}
	get(t, bad, "evil")
	if honest.Flush() != nil || spying.Flush() != nil {
		t.Fatal("no connection")
	}
	wanted := map[string]bool{}
	for _, reply := range reflections {
		wanted[reply] = true
	}
	for len(seen) > 0 {
		if subject := <-seen; wanted[subject] {
			t.Errorf("an answer went to %s", subject)
		}
	}
	st, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := st.Info(t.Context()); err != nil || info.State.Msgs != 1 {
		t.Errorf("the stream: %+v, %v", info, err)
	}
	if v := get(t, h.module(h.leaf, "victim"), "victim").Properties.Reported.Values; v["hacked"] != nil {
		t.Error("the victim's answer became its report")
	}
	h.unharmed()
}

// TestCalleeLearnsWhoCalls, and nothing that the caller made up.
func TestCalleeLearnsWhoCalls(t *testing.T) {
	h := newHostile(t)
	h.declare(h.leaf, allowed("evil", schema.Allow{Call: []string{"victim/speed"}}, "victim"))
	honest := h.module(h.leaf, "victim")
	headers := make(chan nats.Header, 8)
	if _, err := honest.Subscribe(victim+".rpc.speed", func(m *nats.Msg) { headers <- m.Header; _ = m.Respond(nil) }); err != nil || honest.Flush() != nil {
		t.Fatal(err)
	}
	m := &nats.Msg{Subject: evil + ".call.victim.speed", Header: nats.Header{
		twin.HeaderFrom: {"agent"}, "tidemark-from": {"agent"}, "Nats-Msg-Id": {"1"}, "Nats-Batch-Id": {"b"}, "Nats-Schedule": {"@at 2030-01-01T00:00:00Z"}, "X": {"y"},
	}}
	if _, err := h.module(h.leaf, "evil").RequestMsg(m, patience); err != nil {
		t.Fatal(err)
	}
	got := <-headers
	if len(got) != 2 || got.Get(twin.HeaderFrom) != "evil" || got.Get(twin.HeaderTimeout) == "" {
		t.Errorf("headers %v", got)
	}
	for _, subject := range []string{evil + ".call.victim.other", evil + ".call.evil.speed", evil + ".call.victim.*", evil + ".call.>", evil + ".call.victim.speed.x", victim + ".rpc.speed", victim + ".call.evil.x"} {
		if err := h.conn.PublishRequest(subject, twin.Inbox("d1", "evil")+".r", nil); err != nil {
			t.Fatal(err)
		}
		h.wantViolation("publish to " + subject)
	}
	if len(headers) != 0 {
		t.Error("a call that nobody allowed")
	}
	h.unharmed()
}

// TestHeadersOfJetStream do nothing on what a module may publish to.
func TestHeadersOfJetStream(t *testing.T) {
	h := newHostile(t)
	js, _ := h.stream(h.leaf)
	if err := storeIn(js, []byte("kept")); err != nil {
		t.Fatal(err)
	}
	h.seen() // what making the stream brought about
	for _, header := range []nats.Header{
		{"Nats-Batch-Id": {"b"}, "Nats-Batch-Sequence": {"1"}, "Nats-Batch-Commit": {"1"}},
		{"Nats-Schedule": {"@every 1s"}, "Nats-Schedule-Target": {victim + ".in.x"}},
		{"Nats-Rollup": {"all"}}, {"Nats-TTL": {"1s"}}, {"Nats-Incr": {"1"}}, {"Nats-Expected-Last-Sequence": {"0"}},
		{"Nats-Response-Type": {"x"}}, {"KV-Operation": {"PURGE"}}, {"Nats-Pending-Messages": {"0"}}, {"X-B3-Sampled": {"1"}, "uber-trace-id": {"1:1:0:1"}},
	} {
		for _, subject := range []string{evil + ".out.x", evil + ".twin.reported", "s"} {
			if err := h.conn.PublishMsg(&nats.Msg{Subject: subject, Reply: twin.Inbox("d1", "evil") + ".r", Header: header, Data: []byte(`{"a":1}`)}); err != nil {
				t.Fatal(err)
			}
		}
		for _, subject := range h.seen() {
			if !strings.HasPrefix(subject, evil+".") && !strings.HasPrefix(subject, twin.Inbox("d1", "evil")) && !strings.HasPrefix(subject, "_INBOX.d1.") && subject != "s" {
				t.Errorf("headers %v: something went to %s", header, subject)
			}
		}
	}
	st, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := st.Info(t.Context(), jetstream.WithSubjectFilter(">")); err != nil || info.State.Msgs != 1 {
		t.Errorf("the stream: %+v, %v", info, err)
	}
	h.unharmed()
}
