package outbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

func TestMessageReachesHub(t *testing.T) {
	n := newNode(t)
	up := newUpstream(t, n)
	o := open(t, n.connect(), n.connect(), Config{})
	m := nats.NewMsg(twin.Prefix(device, "sensor") + ".out.reading")
	m.Data = []byte(`{"temperature":21}`)
	m.Header.Set("Content-Type", "application/json")
	m.Header.Set("Nats-Msg-Id", "1")
	m.Header["nats-rollup"] = []string{"all"}
	m.Header["tidemark-seq"] = []string{"99"}
	answer, err := module(n, "sensor").RequestMsg(m, 10*time.Second)
	if err != nil || string(answer.Data) != `{"seq":1}` {
		t.Fatalf("answer %v, %v", answer, err)
	}
	drained(t, o)
	got := up.held()
	if len(got) != 1 || got[0].Subject != "up.hannover01.out.sensor.reading" || string(got[0].Data) != `{"temperature":21}` {
		t.Fatalf("hub holds %v", got)
	}
	h := got[0].Header
	stats, err := o.Stats(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.RFC3339Nano, h.Get(twin.HeaderTime)); err != nil {
		t.Error(err)
	}
	delete(h, twin.HeaderTime)
	delete(h, headerExpectLast)
	delete(h, headerExpectFilter)
	if want := fmt.Sprint(nats.Header{"Content-Type": {"application/json"}, "Tidemark-Epoch": {stats.Epoch}, "Tidemark-Seq": {"1"}}); fmt.Sprint(h) != want {
		t.Errorf("headers %v, want %v", h, want)
	}
	if stats.Delivered != 1 || stats.Pending != 0 || stats.LastError != "" {
		t.Errorf("stats %+v", stats)
	}
}

// TestManyModulesInOrder has ten modules send at once, each many at a time.
func TestManyModulesInOrder(t *testing.T) {
	n := newNode(t)
	up := newUpstream(t, n)
	o := open(t, n.connect(), n.connect(), Config{})
	var wg sync.WaitGroup
	for i := range 10 {
		name := fmt.Sprintf("m%d", i)
		nc := module(n, name)
		wg.Go(func() { sayAll(t, nc, name, numbers(1, 200)) })
	}
	wg.Wait()
	drained(t, o)
	bodies, dropped := up.covered()
	if len(bodies) != 2000 || len(dropped) != 0 {
		t.Fatalf("hub holds %d messages, and %d ranges are dropped", len(bodies), len(dropped))
	}
	by := map[string][]string{}
	for _, m := range up.held() {
		by[m.Subject] = append(by[m.Subject], string(m.Data))
	}
	for subject, got := range by {
		if !slices.Equal(got, numbers(1, 200)) {
			t.Errorf("%s: %v", subject, got)
		}
	}
}

// sayAll sends many messages without waiting in between, and waits for all answers.
func sayAll(t testing.TB, nc *nats.Conn, module string, bodies []string) {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Error(err)
		return
	}
	defer sub.Unsubscribe()
	for _, b := range bodies {
		if err := nc.PublishRequest(twin.Prefix(device, module)+".out.n", inbox, []byte(b)); err != nil {
			t.Error(err)
			return
		}
	}
	for range bodies {
		m, err := sub.NextMsg(30 * time.Second)
		if err != nil {
			t.Error(err)
			return
		}
		var a stamped
		if err := json.Unmarshal(m.Data, &a); err != nil || a.Seq == 0 {
			t.Errorf("answer %s: %v", m.Data, err)
			return
		}
	}
}

func TestRefusals(t *testing.T) {
	n := newNode(t)
	o := open(t, n.connect(), nil, Config{})
	headers := func(size, count int) nats.Header {
		h := nats.Header{}
		for i := range count {
			h.Set(fmt.Sprintf("H%d", i), strings.Repeat("x", size))
		}
		return h
	}
	for _, c := range []struct {
		name, subject string
		header        nats.Header
		size, code    int
	}{
		{"upper case", "devices.hannover01.modules.sensor.out.Reading", nil, 1, twin.CodeMalformed},
		{"two tokens", "devices.hannover01.modules.sensor.out.a.b", nil, 1, twin.CodeMalformed},
		{"long name", "devices.hannover01.modules.sensor.out." + strings.Repeat("a", 64), nil, 1, twin.CodeMalformed},
		{"module name", "devices.hannover01.modules.-.out.a", nil, 1, twin.CodeMalformed},
		{"too large", "devices.hannover01.modules.sensor.out.a", nil, MaxBody + 1, twin.CodeTooLarge},
		{"header bytes", "devices.hannover01.modules.sensor.out.a", headers(MaxHeaders, 1), 1, twin.CodeTooLarge},
		{"header count", "devices.hannover01.modules.sensor.out.a", headers(1, maxValues+1), 1, twin.CodeTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &nats.Msg{Subject: c.subject, Header: c.header, Data: make([]byte, c.size)}
			inbox := twin.Inbox(device, strings.Split(c.subject, ".")[3])
			answer, err := n.connect(nats.CustomInboxPrefix(inbox)).RequestMsg(m, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if a, err := twin.ReadAnswer(answer.Data); err == nil || a.Error == nil || a.Error.Code != c.code {
				t.Errorf("answer %s", answer.Data)
			}
		})
	}
	if s, err := o.Stats(testContext(t)); err != nil || s.Refused != 7 || s.Stored != 0 {
		t.Errorf("stats %+v, %v", s, err)
	}
}

// TestReplyElsewhereIsNotUsed: an answer is published with the agent's own
// permissions, so a module must not choose where it goes.
func TestReplyElsewhereIsNotUsed(t *testing.T) {
	n := newNode(t)
	open(t, n.connect(), nil, Config{})
	nc := module(n, "sensor")
	other, err := nc.SubscribeSync("devices.hannover01.modules.pump.rpc.stop")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("devices.hannover01.modules.sensor.out.a", other.Subject, []byte("x")); err != nil {
		t.Fatal(err)
	}
	say(t, nc, "sensor", "a", "after it")
	if n, _, _ := other.Pending(); n != 0 {
		t.Error("the answer went to another module's subject")
	}
}

func TestLargestMessageArrives(t *testing.T) {
	n := newNode(t)
	up := newUpstream(t, n)
	o := open(t, n.connect(), n.connect(), Config{})
	m := nats.NewMsg(twin.Prefix(device, "sensor") + ".out.photo")
	m.Data = make([]byte, MaxBody)
	m.Header.Set("X", strings.Repeat("x", MaxHeaders-1))
	nc := module(n, "sensor")
	for range 3 {
		if a, err := nc.RequestMsg(m, 10*time.Second); err != nil || !strings.HasPrefix(string(a.Data), `{"seq"`) {
			t.Fatalf("%v, %v", a, err)
		}
	}
	drained(t, o)
	if got := up.held(); len(got) != 3 || len(got[2].Data) != MaxBody {
		t.Errorf("hub holds %d", len(got))
	}
}

// TestWithoutRequestIsStoredToo: a module that asks for no answer gets none,
// and its message is stored.
func TestWithoutRequestIsStoredToo(t *testing.T) {
	n := newNode(t)
	up := newUpstream(t, n)
	o := open(t, n.connect(), n.connect(), Config{})
	nc := module(n, "sensor")
	if err := nc.Publish("devices.hannover01.modules.sensor.out.a", []byte("quiet")); err != nil {
		t.Fatal(err)
	}
	say(t, nc, "sensor", "a", "loud")
	drained(t, o)
	if bodies, _ := up.covered(); !slices.Equal(bodies, []string{"quiet", "loud"}) {
		t.Error(bodies)
	}
}
