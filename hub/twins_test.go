package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

func document(device, module string, desired, reported uint64, value string) twin.Document {
	d := twin.Document{Device: device, Module: module}
	d.Properties.Desired = twin.Section{Values: map[string]any{"v": value}, Version: desired}
	d.Properties.Reported = twin.Section{Values: map[string]any{"v": value}, Version: reported}
	return d
}

// deviceOf is a connection of a device that is admitted.
func deviceOf(t testing.TB, name string) (*cloud, *nats.Conn) {
	t.Helper()
	key, public := newKey(t)
	c := newCloud(t, schema.Entry{Name: name, Identity: public})
	nc, err := login(c.hub.ClientURL(), key, nats.CustomInboxPrefix(twin.Inbox(name, "")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return c, nc
}

func send(t testing.TB, nc *nats.Conn, d twin.Document) twin.Receipt {
	t.Helper()
	body, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	m, err := nc.Request(twin.UpTwin(d.Device), body, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	r, err := twin.ReadReceipt(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestVersionNeverGoesBack sends documents one after the other.
func TestVersionNeverGoesBack(t *testing.T) {
	_, nc := deviceOf(t, "a")
	for i, c := range []struct {
		desired, reported uint64
		value             string
		want              twin.Receipt
	}{
		{2, 3, "x", twin.Receipt{Stored: true, Desired: 2, Reported: 3}},
		{2, 3, "x", twin.Receipt{Stored: true, Desired: 2, Reported: 3}},
		{2, 3, "other", twin.Receipt{Desired: 2, Reported: 3}},
		{1, 4, "x", twin.Receipt{Desired: 2, Reported: 3}},
		{3, 2, "x", twin.Receipt{Desired: 2, Reported: 3}},
		{0, 0, "x", twin.Receipt{Desired: 2, Reported: 3}},
		{2, 4, "y", twin.Receipt{Stored: true, Desired: 2, Reported: 4}},
		{9, 4, "y", twin.Receipt{Stored: true, Desired: 9, Reported: 4}},
	} {
		if got := send(t, nc, document("a", "m", c.desired, c.reported, c.value)); got != c.want {
			t.Errorf("step %d: %+v, want %+v", i, got, c.want)
		}
	}
}

// TestLargestDocumentIsStored sends one as large as a device may send it, of
// characters that JSON for HTML escapes.
func TestLargestDocumentIsStored(t *testing.T) {
	c, nc := deviceOf(t, "a")
	for version := range 2 { // made, and replaced
		d := document("a", "m", uint64(version+1), 1, "")
		d.Tags = map[string]any{"v": strings.Repeat("<", twin.MaxDocument-len(d.Encode())-len(`,"tags":{"v":""}`))}
		if n := len(d.Encode()); n != twin.MaxDocument {
			t.Fatalf("%d bytes, want %d", n, twin.MaxDocument)
		}
		m, err := nc.Request(twin.UpTwin("a"), d.Encode(), 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := twin.ReadReceipt(m.Data); err != nil || !r.Stored {
			t.Fatalf("version %d: %+v, %v", version+1, r, err)
		}
		if got, err := c.hub.Twins().Get(testContext(t), "a", "m"); err != nil || got.Properties.Desired.Version != d.Properties.Desired.Version {
			t.Fatal(err)
		}
	}
}

// TestConcurrentDocuments sends many versions at once, in no order: at every
// moment the hub holds a version at least as new as before, at the end the newest.
func TestConcurrentDocuments(t *testing.T) {
	c, nc := deviceOf(t, "a")
	ctx := testContext(t)
	seen := make(chan uint64, 1000)
	go c.hub.Twins().Watch(ctx, "a", func(d twin.Document) bool {
		seen <- d.Properties.Reported.Version
		return d.Properties.Reported.Version != 64
	})
	var wg sync.WaitGroup
	for _, v := range rand.Perm(64) {
		wg.Go(func() {
			body, _ := json.Marshal(document("a", "", 1, uint64(v+1), fmt.Sprint(v)))
			until(t, "stored", func() bool {
				m, err := nc.Request(twin.UpTwin("a"), body, 20*time.Second)
				if err != nil {
					return false
				}
				_, err = twin.ReadReceipt(m.Data) // a race that is lost too often is answered as busy
				return err == nil
			})
		})
	}
	wg.Wait()
	for last := uint64(0); last != 64; {
		v := <-seen
		if v <= last {
			t.Fatalf("version %d after %d", v, last)
		}
		last = v
	}
	if d, err := c.hub.Twins().Get(ctx, "a", ""); err != nil || d.Properties.Reported.Version != 64 {
		t.Error(d, err)
	}
}

// TestTwinsOfOneDeviceDelayNobody: a device that has as many requests waiting as it
// may is told to try again, and the others are answered.
func TestTwinsOfOneDeviceDelayNobody(t *testing.T) {
	c := newCloud(t)
	nc := c.as("a")
	for range maxDeviceWork {
		if !c.hub.work.take("a") {
			t.Fatal("no room for what a device may")
		}
	}
	m, err := nc.Request(twin.UpTwin("a"), document("a", "", 1, 1, "x").Encode(), 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := twin.ReadReceipt(m.Data); code(err) != twin.CodeBusy {
		t.Errorf("%s", m.Data)
	}
	if r := send(t, c.as("b"), document("b", "", 1, 1, "x")); !r.Stored {
		t.Errorf("%+v", r)
	}
	for range maxDeviceWork {
		c.hub.work.give("a")
	}
	if r := send(t, nc, document("a", "", 1, 1, "x")); !r.Stored {
		t.Errorf("%+v", r)
	}
}

// TestReadersSeeTwins reads as a person does.
func TestReadersSeeTwins(t *testing.T) {
	c, nc := deviceOf(t, "a")
	ctx := testContext(t)
	reader, err := OpenTwins(ctx, c.operator())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Get(ctx, "a", "m"); !errors.Is(err, ErrNoTwin) {
		t.Error(err)
	}
	if _, err := reader.Get(ctx, "*", ""); err == nil || errors.Is(err, ErrNoTwin) {
		t.Error(err)
	}
	if got, err := reader.List(ctx, ""); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
	for _, m := range []string{"z", "", "b"} {
		send(t, nc, document("a", m, 1, 1, "x"))
	}
	for _, device := range []string{"", "a"} {
		got, err := reader.List(ctx, device)
		if err != nil || len(got) != 3 || got[0].Module != "" || got[1].Module != "b" || got[2].Module != "z" {
			t.Errorf("%q: %v, %v", device, got, err)
		}
	}
	if got, err := reader.List(ctx, "nobody"); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
	if d, err := reader.Get(ctx, "a", "b"); err != nil || d.Properties.Desired.Values["v"] != "x" {
		t.Error(d, err)
	}
}

// hostileTwins are bodies that a device may send instead of a twin of its own.
var hostileTwins = []struct {
	body string
	code int
}{
	{``, twin.CodeMalformed}, {`null`, twin.CodeRefused}, {`[]`, twin.CodeMalformed}, {`"x"`, twin.CodeMalformed}, {`{`, twin.CodeMalformed},
	{`{}`, twin.CodeRefused}, {`{"device":"b"}`, twin.CodeRefused}, {`{"device":"a"} {}`, twin.CodeMalformed}, {`{"device":1}`, twin.CodeMalformed},
	{`{"device":"a","module":"x.y"}`, twin.CodeMalformed}, {`{"device":"a","module":"*"}`, twin.CodeMalformed}, {`{"device":"a","module":">"}`, twin.CodeMalformed},
	{`{"device":"a","properties":{"desired":{"$version":-1}}}`, twin.CodeMalformed},
	{`{"device":"a","properties":{"desired":{"$version":1.5}}}`, twin.CodeMalformed},
	{`{"device":"a","properties":{"reported":{"$version":1e300}}}`, twin.CodeMalformed},
	{`{"device":"a","properties":{"reported":[]}}`, twin.CodeMalformed},
	{strings.Repeat(`{"device":`, 20000), twin.CodeMalformed},
	{strings.Repeat("x", twin.MaxDocument+1), twin.CodeTooLarge},
}

func TestHostileTwins(t *testing.T) {
	for _, c := range hostileTwins {
		if _, err := readTwin("a", []byte(c.body)); err == nil || err.Code != c.code {
			t.Errorf("%.60q: %v, want %d", c.body, err, c.code)
		}
	}
	c, nc := deviceOf(t, "a")
	for _, h := range hostileTwins {
		if len(h.body) > 1<<20 {
			continue // the server refuses it before
		}
		m, err := nc.Request("up.a.twin", []byte(h.body), 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := twin.ReadReceipt(m.Data); err == nil {
			t.Errorf("%.60q: %s", h.body, m.Data)
		}
	}
	if got, err := c.hub.Twins().List(testContext(t), ""); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
}

// TestAnswerGoesOnlyToTheAsker: a device that names another's inbox, or
// anything else, as the reply does not get the hub to speak there.
func TestAnswerGoesOnlyToTheAsker(t *testing.T) {
	c, nc := deviceOf(t, "a")
	operator := c.operator()
	spy, err := operator.SubscribeSync("_INBOX.b.x")
	if err != nil {
		t.Fatal(err)
	}
	for _, reply := range []string{"_INBOX.b.x", "devices.b.rpc.stop", "$JS.API.STREAM.DELETE.MESSAGES", "_INBOX.a"} {
		if err := nc.PublishRequest("up.a.twin", reply, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := nc.Request("up.a.twin", nil, 20*time.Second); err != nil {
		t.Error(err)
	}
	if n, _, _ := spy.Pending(); n != 0 {
		t.Error("the hub spoke to b")
	}
}

func FuzzReadTwin(f *testing.F) {
	for _, c := range hostileTwins {
		if len(c.body) < 1000 {
			f.Add([]byte(c.body))
		}
	}
	f.Add([]byte(`{"device":"a","module":"m","properties":{"desired":{"$version":1,"x":{"y":[1,2]}},"reported":{}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, refused := readTwin("a", body)
		if refused != nil {
			return
		}
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		// What is written may be larger than what was read: only what is read
		// again must be the same.
		if e, err := twin.ReadDocument(again); err == nil && newer(e, d) {
			t.Errorf("%s became newer: %s", body, again)
		}
	})
}

func FuzzReadPlace(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\nTidemark-Epoch: e\r\nTidemark-Seq: 7\r\n\r\n"))
	f.Add([]byte("NATS/1.0\r\n\r\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r := readPlace(9, raw); r.last != 9 || len(r.at.Epoch) > 64 || r.at.Epoch == "" && r.at.Seq != 0 {
			t.Errorf("%+v", r)
		}
	})
}

func FuzzFleetFile(f *testing.F) {
	f.Add([]byte(`{"sha256":"","fleet":{}}`))
	f.Fuzz(func(t *testing.T, raw []byte) { parseFleet(raw) })
}

// TestDeviceTwinReachesHub uses the real leaf and uplink: what is reported comes
// up, a device that lost its disk goes on above, and a hub that lost its own is
// filled again.
func TestDeviceTwinReachesHub(t *testing.T) {
	g := newGadget(t, "a")
	c := newCloud(t, g.entry())
	g.link(c)
	ctx := testContext(t)
	declare := func(g *gadget, value string) {
		t.Helper()
		desired := schema.Desired{Device: "a", Modules: []schema.Module{{Name: "sensor", Twin: schema.TwinSpec{Desired: map[string]any{"interval": value}}}}}
		if err := g.leaf.Declare(ctx, desired); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(what, module string, f func(twin.Document) bool) twin.Document {
		t.Helper()
		var d twin.Document
		until(t, what, func() bool {
			var err error
			d, err = c.hub.Twins().Get(ctx, "a", module)
			return err == nil && f(d)
		})
		return d
	}
	interval := func(value string) func(twin.Document) bool {
		return func(d twin.Document) bool { return d.Properties.Desired.Values["interval"] == value }
	}
	for i := range 5 {
		declare(g, fmt.Sprint(i))
	}
	first := holds("desired 4", "sensor", interval("4"))

	again := newGadget(t, "a")
	g.close()
	c.follow(again.entry())
	again.link(c)
	declare(again, "new disk")
	second := holds("a new disk goes on above", "sensor", interval("new disk"))
	if second.Properties.Desired.Version <= first.Properties.Desired.Version {
		t.Errorf("version %d after %d", second.Properties.Desired.Version, first.Properties.Desired.Version)
	}

	if err := c.hub.twins.Purge(ctx, twinKey("a", "sensor")); err != nil {
		t.Fatal(err)
	}
	again.proxy.cut()
	again.proxy.mend()
	holds("a hub that lost it is filled again", "sensor", interval("new disk"))

	again.proxy.cut()
	declare(again, "offline")
	again.proxy.mend()
	holds("what changed offline", "sensor", interval("offline"))
}
