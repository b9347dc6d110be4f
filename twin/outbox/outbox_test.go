package outbox

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

func toHub(name, from string) schema.Route {
	return schema.Route{Name: name, From: from, To: schema.ToHub, Overflow: schema.OverflowDropOldest, Order: schema.OrderStrict}
}

func toModule(name, from, to string) schema.Route {
	return schema.Route{Name: name, From: from, To: to, Overflow: schema.OverflowDropOldest, Order: schema.OrderStrict}
}

func TestMessagesArriveInOrder(t *testing.T) {
	n := newNode(t)
	c := newCloud(t, n.connect())
	o := open(t, n, n.connect(), Config{})
	nc := module(n, "sensor")
	sayAll(t, nc, "sensor", numbers(1, 2500))
	if seq := say(t, nc, "sensor", "n", "2501"); seq != 2501 {
		t.Errorf("sequence %d", seq)
	}
	drained(t, o)
	if bodies, lost := c.has("default"); !slices.Equal(bodies, numbers(1, 2501)) || len(lost) != 0 {
		t.Errorf("%d bodies, lost %v", len(bodies), lost)
	}
	if s := stats(t, o); s.Stored != 2501 || s.Refused != 0 || s.Lanes[0].Delivered != 2501 {
		t.Errorf("%+v", s)
	}
}

// TestBufferedMessagesSurviveAReboot stores while there is no hub, restarts
// everything, and delivers (iotedge#706, iotedge#392).
func TestBufferedMessagesSurviveAReboot(t *testing.T) {
	n := newNode(t)
	o := open(t, n, nil, Config{})
	sayAll(t, module(n, "sensor"), "sensor", numbers(1, 700))
	if l := laneOf(t, o, "default"); l.Pending != 700 || l.Bytes == 0 {
		t.Errorf("%+v", l)
	}
	o.Close()
	hub := newNode(t)
	c := newCloud(t, hub.connect())
	for i := range 4 {
		o = open(t, n, hub.connect(), Config{})
		sayAll(t, module(n, "sensor"), "sensor", numbers(701+i*100, 800+i*100))
		o.Close() // anywhere in the middle of sending
		n.restart()
	}
	o = open(t, n, hub.connect(), Config{})
	say(t, module(n, "sensor"), "sensor", "n", "1101")
	drained(t, o)
	if bodies, lost := c.has("default"); !slices.Equal(bodies, numbers(1, 1101)) || len(lost) != 0 {
		t.Errorf("%d bodies, lost %v", len(bodies), lost)
	}
}

func TestRoutesByPatternAndCondition(t *testing.T) {
	n := newNode(t)
	c := newCloud(t, n.connect())
	o := open(t, n, n.connect(), Config{})
	alarms := toHub("alarms", "*/n")
	alarms.Where = `body.temperature > 80 && headers["kind"] == "t"`
	route(t, o, toHub("camera", "camera/*"), alarms, toHub("exact", "sensor/raw"))
	send := func(module_, name, kind, body string) {
		t.Helper()
		m := &nats.Msg{Subject: twin.Prefix(device, module_) + ".out." + name, Header: nats.Header{"kind": {kind}}, Data: []byte(body)}
		a, err := module(n, module_).RequestMsg(m, 30*time.Second)
		if err != nil || bytes.Contains(a.Data, []byte("error")) {
			t.Fatalf("%s, %v", a.Data, err)
		}
	}
	send("sensor", "n", "t", `{"temperature": 90}`)
	send("sensor", "n", "t", `{"temperature": 20}`)
	send("sensor", "n", "x", `{"temperature": 90}`)
	send("sensor", "n", "t", `{"pressure": 1}`)
	send("sensor", "raw", "t", "raw")
	send("camera", "n", "t", `{"temperature": 99}`)
	send("camera", "frame", "t", "frame")
	drained(t, o)
	for lane, want := range map[string][]string{
		"alarms": {`{"temperature": 90}`, `{"temperature": 99}`}, "exact": {"raw"}, "camera": {`{"temperature": 99}`, "frame"},
	} {
		if got, _ := c.has(lane); !slices.Equal(got, want) {
			t.Errorf("lane %s: %v", lane, got)
		}
	}
	s := stats(t, o)
	if s.Unrouted["sensor/n"] != 3 || s.Conditions["alarms"] != 1 || s.Stored != 4 {
		t.Errorf("%+v", s)
	}
}

// TestUnroutedIsAnsweredCountedAndToldOnce.
func TestUnroutedIsAnsweredCountedAndToldOnce(t *testing.T) {
	n := newNode(t)
	warned := make(chan error, 100)
	o := open(t, n, nil, Config{Warn: func(err error) { warned <- err }})
	route(t, o, toHub("camera", "camera/*"))
	nc := module(n, "sensor")
	for range 3 {
		if a := ask(t, nc, "sensor", "n", "x"); a.Error != nil || a.Seq != 0 {
			t.Errorf("%+v", a)
		}
	}
	if s := stats(t, o); s.Unrouted["sensor/n"] != 3 || len(warned) != 1 {
		t.Errorf("%+v, %d warnings", s, len(warned))
	}
	for i := range maxUnrouted + 50 {
		if o.counts.unroute("m/" + strings.Repeat("x", i)); len(o.counts.unrouted) > maxUnrouted+1 {
			t.Fatal("names without end")
		}
	}
}

func TestHostileMessagesAreRefused(t *testing.T) {
	n := newNode(t)
	o := open(t, n, nil, Config{})
	nc := module(n, "sensor")
	out := twin.Prefix(device, "sensor") + ".out."
	for name, tt := range map[string]struct {
		msg  *nats.Msg
		code string
	}{
		"name of two tokens": {&nats.Msg{Subject: out + "a.b"}, "400"},
		"name in capitals":   {&nats.Msg{Subject: out + "ABC"}, "400"},
		"too large":          {&nats.Msg{Subject: out + "n", Data: make([]byte, twin.MaxBody+1)}, "413"},
		"steers JetStream":   {&nats.Msg{Subject: out + "n", Header: nats.Header{"Nats-Rollup": {"all"}}}, "403"},
		"speaks for us":      {&nats.Msg{Subject: out + "n", Header: nats.Header{"tidemark-seq": {"1"}}}, "403"},
		"headers too large":  {&nats.Msg{Subject: out + "n", Header: nats.Header{"A": {strings.Repeat("x", twin.MaxHeaders)}}}, "413"},
	} {
		a, err := nc.RequestMsg(tt.msg, 10*time.Second)
		if err != nil || !bytes.Contains(a.Data, []byte(tt.code)) {
			t.Errorf("%s: %s, %v", name, a.Data, err)
		}
	}
	// An answer goes to the module's own inbox, whatever the module says: it is
	// published with our permissions.
	elsewhere := []string{
		"_INBOX.other.x", twin.Inbox(device, "") + ".x", twin.Inbox(device, "other") + ".x", twin.Inbox(device, "sensor2") + ".x",
		twin.Inbox(device, "sensor"), twin.Prefix(device, "other") + ".in.x", twin.Prefix(device, "other") + ".out.x", twin.UpMessages(device), "$OUTBOX.OUTBOX_default",
	}
	victim, heard := n.connect(), make(chan *nats.Msg, 64)
	for _, reply := range elsewhere {
		if _, err := victim.ChanSubscribe(reply, heard); err != nil {
			t.Fatal(err)
		}
	}
	if err := victim.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, reply := range elsewhere {
		if err := nc.PublishRequest(out+"n", reply, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "they are refused", func() bool { return stats(t, o).Refused == uint64(6+len(elsewhere)) })
	select {
	case m := <-heard:
		t.Errorf("%s: %s", m.Subject, m.Data)
	case <-time.After(100 * time.Millisecond):
	}
	if s := stats(t, o); s.Stored != 0 {
		t.Errorf("%+v", s)
	}
	if seq := say(t, nc, "sensor", "n", strings.Repeat("x", twin.MaxBody)); seq != 1 {
		t.Error("the largest message is refused")
	}
}

// TestBoundIsKeptOnDisk fills the outbox beyond its bound while the hub
// cannot be reached (iotedge#2674, iotedge#3981): the oldest go, and the hub gets to know
// which.
func TestBoundIsKeptOnDisk(t *testing.T) {
	n := newNode(t)
	hub := newNode(t)
	o := open(t, n, hub.connect(), Config{MaxBytes: 4 << 20})
	nc := module(n, "sensor")
	for i := range 600 {
		say(t, nc, "sensor", "n", strings.Repeat("x", 16<<10)+numbers(i+1, i+1)[0])
	}
	if l := laneOf(t, o, "default"); l.Bytes > 4<<20 || l.Pending > 300 {
		t.Fatalf("%+v", l)
	}
	c := newCloud(t, hub.connect())
	o.Kick()
	drained(t, o)
	bodies, ranges := c.has("default")
	lost := uint64(0)
	for _, r := range ranges {
		if lost += r.To - r.From + 1; r.Reason != twin.LostBound {
			t.Errorf("%+v", r)
		}
	}
	if lost == 0 || int(lost)+len(bodies) != 600 {
		t.Errorf("%d messages arrived, %d are accounted for: %v", len(bodies), lost, ranges)
	}
}

// TestRefusedMessageIsNowhere has a route that refuses beside one that does not.
func TestRefusedMessageIsNowhere(t *testing.T) {
	n := newNode(t)
	o := open(t, n, nil, Config{MaxBytes: 64 << 20})
	strict := toHub("strict", "*/*")
	strict.Overflow, strict.MaxBytes = schema.OverflowRefuse, queue.MinBytes
	also := toHub("also", "*/*")
	also.Overflow, also.MaxBytes = schema.OverflowRefuse, queue.MinBytes
	other := toHub("other", "*/*")
	route(t, o, other, strict, also)
	nc := module(n, "sensor")
	body := strings.Repeat("x", 64<<10)
	taken := uint64(0)
	for range 100 {
		switch a := ask(t, nc, "sensor", "n", body); {
		case a.Error == nil:
			taken++
		case a.Error.Code != twin.CodeNoSpace:
			t.Fatal(a.Error)
		}
	}
	if taken < 20 || taken > 60 {
		t.Errorf("%d were taken", taken)
	}
	for _, name := range []string{"strict", "also", "other"} {
		if l := laneOf(t, o, name); l.Pending != taken {
			t.Errorf("%d were taken, and %d are in %s", taken, l.Pending, name)
		}
	}
}

func TestRoutesAreChecked(t *testing.T) {
	change := func(f func(*schema.Route)) []schema.Route {
		r := toHub("a", "m/o")
		f(&r)
		return []schema.Route{r}
	}
	many := make([]schema.Route, maxRoutes+1)
	for name, tt := range map[string]struct {
		routes []schema.Route
		want   string
	}{
		"name":      {change(func(r *schema.Route) { r.Name = "A b" }), "A b"},
		"from":      {change(func(r *schema.Route) { r.From = "m" }), "want <module>/<name>"},
		"from name": {change(func(r *schema.Route) { r.From = "m/o.p" }), "o.p"},
		"to":        {change(func(r *schema.Route) { r.To = "cloud" }), `want "hub" or <module>/<input>`},
		"to any":    {change(func(r *schema.Route) { r.To = "*/in" }), `want "hub" or <module>/<input>`},
		"where":     {change(func(r *schema.Route) { r.Where = "bodyy" }), "1:1: undeclared reference"},
		"priority":  {change(func(r *schema.Route) { r.Priority = 10 }), "priority 10"},
		"overflow":  {change(func(r *schema.Route) { r.Overflow = "x" }), "overflow"},
		"order":     {change(func(r *schema.Route) { r.Order = "x" }), "order"},
		"small":     {change(func(r *schema.Route) { r.MaxBytes = 1000 }), "want at least"},
		"large":     {change(func(r *schema.Route) { r.MaxBytes = 1 << 30 }), "a 1.0 GiB = 1.0 GiB: of 64.0 MiB"},
		"twice":     {[]schema.Route{toHub("a", "m/o"), toHub("a", "m/p")}, "two of that name"},
		"too many":  {many, "65 routes are more than"},
		"sum": {[]schema.Route{change(func(r *schema.Route) { r.MaxBytes = 40 << 20 })[0], change(func(r *schema.Route) { r.Name, r.MaxBytes = "b", 23<<20 })[0], toHub("c", "m/o")},
			"a 40.0 MiB + b 23.0 MiB + 1 without maxBytes at least 3.0 MiB each = 66.0 MiB: of 64.0 MiB"},
	} {
		if _, err := newTable(tt.routes, 64<<20); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	fixed := toHub("b", "m/o")
	fixed.MaxBytes = 24 << 20
	got, err := newTable([]schema.Route{toHub("a", "m/o"), fixed, toHub("c", "m/o")}, 64<<20)
	if err != nil || got.rules[0].bytes != 20<<20 || got.rules[1].bytes != 24<<20 || got.rules[2].bytes != 20<<20 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestRoutesSurviveAReboot: a device that boots offline has its routes at once.
func TestRoutesSurviveAReboot(t *testing.T) {
	n := newNode(t)
	o := open(t, n, nil, Config{})
	route(t, o, toHub("a", "sensor/*"), toHub("b", "camera/*"))
	say(t, module(n, "camera"), "camera", "n", "x")
	o.Close()
	n.restart()
	o = open(t, n, nil, Config{})
	say(t, module(n, "camera"), "camera", "n", "y")
	if l := laneOf(t, o, "b"); l.Pending != 2 {
		t.Errorf("%+v", l)
	}
	o.Close()
	if err := os.WriteFile(o.routesFile(), []byte(`{"version":1,"sha256":"00","saved":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var warned error
	o = open(t, n, nil, Config{Warn: func(err error) { warned = errors.Join(warned, err) }})
	if seq := say(t, module(n, "camera"), "camera", "n", "z"); seq != 1 || warned == nil {
		t.Errorf("by the default route: %d, %v", seq, warned)
	}
	if l := laneOf(t, o, "b"); l.Pending != 2 || !l.Draining {
		t.Errorf("%+v", l)
	}
	if kept, _ := filepath.Glob(o.routesFile() + "*"); len(kept) == 0 {
		t.Error("the broken file is gone")
	}
}

// TestBrokenRouteFiles reads what no outbox wrote.
func TestBrokenRouteFiles(t *testing.T) {
	for _, data := range []string{"", "{", "null", "[]", `{"version":2}`, `{"version":1,"sha256":"","saved":null}`, `{"version":1,"sha256":"x","saved":{"routes":7}}`} {
		if _, err := decodeRoutes([]byte(data)); err == nil {
			t.Errorf("%q is read", data)
		}
	}
}

// TestRouteThatGoesDrains takes a route away while messages wait in it, and
// restarts: they go to the hub all the same, and then the queue is gone.
func TestRouteThatGoesDrains(t *testing.T) {
	n := newNode(t)
	hub := newNode(t)
	o := open(t, n, hub.connect(), Config{})
	route(t, o, toHub("a", "sensor/*"))
	sayAll(t, module(n, "sensor"), "sensor", numbers(1, 50))
	route(t, o, toHub("b", "sensor/*"))
	sayAll(t, module(n, "sensor"), "sensor", numbers(51, 60))
	if l := laneOf(t, o, "a"); !l.Draining || l.Pending != 50 {
		t.Errorf("%+v", l)
	}
	o.Close()
	n.restart()
	o = open(t, n, hub.connect(), Config{})
	c := newCloud(t, hub.connect())
	o.Kick()
	until(t, "the old queue is deleted", func() bool { return len(stats(t, o).Lanes) == 1 })
	if bodies, _ := c.has("a"); !slices.Equal(bodies, numbers(1, 50)) {
		t.Errorf("%v", bodies)
	}
	drained(t, o)
	if bodies, _ := c.has("b"); !slices.Equal(bodies, numbers(51, 60)) {
		t.Errorf("%v", bodies)
	}
	there, err := queue.List(testContext(t), n.connect())
	if err != nil || len(there) != 1 || there[0].Lane != "b" {
		t.Errorf("%+v, %v", there, err)
	}
	// It comes back, and goes on.
	route(t, o, toHub("a", "sensor/*"))
	say(t, module(n, "sensor"), "sensor", "n", "61")
	drained(t, o)
	if bodies, lost := c.has("a"); !slices.Equal(bodies, append(numbers(1, 50), "61")) || len(lost) != 0 {
		t.Errorf("%v, %v", bodies, lost)
	}
}

// TestRoutesChangeUnderLoad changes routes while messages come: each is answered, and
// each that was stored arrives once by some route.
func TestRoutesChangeUnderLoad(t *testing.T) {
	n := newNode(t)
	c := newCloud(t, n.connect())
	o := open(t, n, n.connect(), Config{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc := module(n, "sensor")
		for i := range 40 {
			sayAll(t, nc, "sensor", numbers(i*10+1, i*10+10))
		}
	}()
	for i := 0; ; i++ {
		if err := o.Route(testContext(t), []schema.Route{toHub([]string{"a", "b", "c"}[i%3], "*/*")}); err != nil {
			t.Error(err)
		}
		select {
		case <-done:
		case <-time.After(10 * time.Millisecond):
			continue
		}
		break
	}
	drained(t, o)
	var all []string
	for _, lane := range []string{"default", "a", "b", "c"} {
		bodies, _ := c.has(lane)
		all = append(all, bodies...)
	}
	want := numbers(1, 400)
	slices.Sort(all)
	slices.Sort(want)
	if !slices.Equal(all, want) {
		t.Errorf("%d messages", len(all))
	}
}

// TestWipedOutbox removes everything of the outbox while it runs, and while it does
// not: it goes on, and the hub has what came before and after.
func TestWipedOutbox(t *testing.T) {
	for _, running := range []bool{true, false} {
		n := newNode(t)
		hubNode := newNode(t)
		c := newCloud(t, hubNode.connect())
		o := open(t, n, hubNode.connect(), Config{})
		sayAll(t, module(n, "sensor"), "sensor", numbers(1, 10))
		drained(t, o)
		wipe := func() {
			if err := errors.Join(os.RemoveAll(o.jetstream()), os.RemoveAll(o.dir())); err != nil {
				t.Fatal(err)
			}
		}
		if running {
			wipe()
		} else {
			o.Close()
			n.stop()
			wipe()
			n.start()
			o = open(t, n, hubNode.connect(), Config{})
		}
		sayAll(t, module(n, "sensor"), "sensor", numbers(11, 20))
		drained(t, o)
		if bodies, _ := c.has("default"); !slices.Equal(bodies, numbers(1, 20)) {
			t.Errorf("running %v: %v", running, bodies)
		}
		o.Close()
	}
}

// TestAQueueWipedWhileNobodyRunsIsToldExactly removes what waited for a hub that was
// away, after the agent has ended in order.
func TestAQueueWipedWhileNobodyRunsIsToldExactly(t *testing.T) {
	n, hubNode, nobody := newNode(t), newNode(t), newNode(t)
	c := newCloud(t, hubNode.connect())
	o := open(t, n, hubNode.connect(), Config{})
	sayAll(t, module(n, "sensor"), "sensor", numbers(1, 10))
	drained(t, o)
	o.Close()
	o = open(t, n, nobody.connect(), Config{})
	sayAll(t, module(n, "sensor"), "sensor", numbers(11, 20))
	o.Close()
	n.stop()
	if err := os.RemoveAll(o.jetstream()); err != nil {
		t.Fatal(err)
	}
	n.start()
	o = open(t, n, hubNode.connect(), Config{})
	sayAll(t, module(n, "sensor"), "sensor", numbers(21, 30))
	drained(t, o)
	bodies, lost := c.has("default")
	if want := append(numbers(1, 10), numbers(21, 30)...); !slices.Equal(bodies, want) {
		t.Errorf("messages %v", bodies)
	}
	if len(lost) != 1 || lost[0].From != 11 || lost[0].To != 20 || lost[0].Reason != twin.LostWiped {
		t.Errorf("lost %+v", lost)
	}
}

// TestFullDiskIsToldAndHeals fills the disk (iotedge#2674): modules are told that there is no
// room, and when there is, they are not.
func TestFullDiskIsToldAndHeals(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	n := nodeAt(t, disk)
	o := open(t, n, nil, Config{MaxBytes: 64 << 20})
	nc := module(n, "sensor")
	body := strings.Repeat("x", 200<<10)
	taken := uint64(0)
	var refused *twin.Error
	for refused == nil {
		if a := ask(t, nc, "sensor", "n", body); a.Error != nil {
			refused = a.Error
		} else {
			taken = a.Seq
		}
	}
	if refused.Code != twin.CodeNoSpace || stats(t, o).LastError == "" {
		t.Errorf("%v", refused)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if seq := say(t, nc, "sensor", "n", body); seq != taken+1 || stats(t, o).LastError != "" {
		t.Errorf("stored as %d behind %d; %s", seq, taken, stats(t, o).LastError)
	}
}

func BenchmarkStoreAlone(b *testing.B) {
	n := newNode(b)
	open(b, n, nil, Config{})
	nc := module(n, "sensor")
	body := strings.Repeat("x", 1024)
	for b.Loop() {
		say(b, nc, "sensor", "n", body)
	}
}

func BenchmarkStoreMany(b *testing.B) {
	n := newNode(b)
	open(b, n, nil, Config{})
	nc := module(n, "sensor")
	bodies := make([]string, 2000)
	for i := range bodies {
		bodies[i] = strings.Repeat("x", 1024)
	}
	b.SetBytes(int64(len(bodies)) * 1024)
	for b.Loop() {
		sayAll(b, nc, "sensor", bodies)
	}
}
