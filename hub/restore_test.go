package hub

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// restored stops the hub, and starts it again on an older copy of its state.
func (c *cloud) restored(copy string) {
	c.t.Helper()
	c.stop()
	if err := os.RemoveAll(c.conf.StateDir); err != nil {
		c.t.Fatal(err)
	}
	if err := os.CopyFS(c.conf.StateDir, os.DirFS(copy)); err != nil {
		c.t.Fatal(err)
	}
	c.start()
}

// saved copies the state of the hub, stopped for it.
func (c *cloud) saved() string {
	c.t.Helper()
	copy := c.t.TempDir()
	c.stop()
	if err := os.CopyFS(copy, os.DirFS(c.conf.StateDir)); err != nil {
		c.t.Fatal(err)
	}
	c.start()
	return copy
}

// TestHubRestoredFromAnOlderCopy: a device learns that the hub has forgotten, says
// what it has no more itself, and sends again what it has. What came after the copy
// was made is not there twice, and what is gone is told exactly.
func TestHubRestoredFromAnOlderCopy(t *testing.T) {
	key, public := newKey(t)
	c := newCloud(t, schema.Entry{Name: "a", Identity: public})
	device := func() *nats.Conn {
		nc, err := login(c.hub.ClientURL(), key, nats.CustomInboxPrefix(twin.Inbox("a", "")))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	nc := device()
	stands(t, nc, "a", batchOf(at(0), 1, 100), at(100))
	send(t, nc, document("a", "m", 1, 1, "old"))
	copy := c.saved()
	nc = device()
	stands(t, nc, "a", batchOf(at(100), 101, 200), at(200))
	send(t, nc, document("a", "m", 5, 7, "new"))

	c.restored(copy)
	nc = device()
	stands(t, nc, "a", batchOf(at(200), 201, 210), at(100))
	settled := twin.Batch{Lane: "default", Prev: at(100), Epoch: "e", From: 101, Items: []twin.Item{{Count: 50, Reason: twin.LostSettled}}}
	settled.Items = append(settled.Items, batchOf(at(150), 151, 210).Items...)
	stands(t, nc, "a", settled, at(210))
	if got := c.came("a", ""); !slices.Equal(got, append(numbers(1, 100), numbers(151, 210)...)) {
		t.Errorf("the hub holds %v", got)
	}
	if a := c.audited("a"); a[0].Messages != 160 || a[0].Lost[twin.LostSettled] != 50 {
		t.Errorf("%+v", a)
	}
	if r := send(t, nc, document("a", "m", 5, 7, "new")); !r.Stored || r.Desired != 5 || r.Reported != 7 {
		t.Errorf("the newer twin is not taken: %+v", r)
	}
}

// TestVersionsNeverGoBackWithARestoredHub has a real device, whose hub forgets.
func TestVersionsNeverGoBackWithARestoredHub(t *testing.T) {
	g := newGadget(t, "a")
	c := newCloud(t, g.entry())
	g.link(c)
	ctx := testContext(t)
	declare := func(value string) {
		t.Helper()
		desired := schema.Desired{Device: "a", Modules: []schema.Module{{Name: "sensor", Twin: schema.TwinSpec{Desired: map[string]any{"interval": value}}}}}
		if err := g.leaf.Declare(ctx, desired); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(value string) uint64 {
		t.Helper()
		var d twin.Document
		until(t, "the hub holds "+value, func() bool {
			var err error
			d, err = c.hub.Twins().Get(ctx, "a", "sensor")
			return err == nil && d.Properties.Desired.Values["interval"] == value
		})
		return d.Properties.Desired.Version
	}
	declare("1")
	first := holds("1")
	copy := c.saved()
	for n := range 5 {
		declare(fmt.Sprint("2.", n))
	}
	second := holds("2.4")
	c.restored(copy)
	again := holds("2.4")
	declare("3")
	if third := holds("3"); first >= second || again != second || third <= second {
		t.Errorf("versions %d, %d, restored %d, %d", first, second, again, third)
	}
}

// TestHubRestartsWhileFleetSends stops and starts the hub under devices that send.
func TestHubRestartsWhileFleetSends(t *testing.T) {
	c := newCloud(t)
	nc := c.as("anybody")
	var all sync.WaitGroup
	for d := range 10 {
		all.Go(func() { scatter(t, nc, fmt.Sprintf("d%d", d), 1500) })
	}
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		c.stop()
		c.start()
	}
	all.Wait()
	for d := range 10 {
		device := fmt.Sprintf("d%d", d)
		if got := c.came(device, ""); !slices.Equal(got, numbers(1, 1500)) {
			t.Errorf("%s: %d", device, len(got))
		}
		c.audited(device)
	}
}

// TestFleetComesBackAtOnce has 5,000 devices ask where they stand, and send what
// waited, in the same moment: each is answered, if only that it shall try again, and
// the hub has all in the end, with a bound on what waits.
func TestFleetComesBackAtOnce(t *testing.T) {
	const devices = 5000
	c := newCloud(t)
	nc := c.operator()
	began := time.Now()
	next := make(chan *nats.Msg, 2*devices)
	if _, err := nc.ChanSubscribe("_INBOX.*.back", next); err != nil {
		t.Fatal(err)
	}
	ask := func(device string, b twin.Batch) {
		if err := nc.PublishRequest(twin.UpMessages(device), twin.Inbox(device, "")+".back", b.Encode()); err != nil {
			t.Fatal(err)
		}
	}
	for d := range devices {
		ask(fmt.Sprintf("d%d", d), twin.Batch{Lane: "default"})
	}
	busy := 0
	for done := 0; done < devices; {
		select {
		case m := <-next:
			device := m.Subject[len("_INBOX.") : len(m.Subject)-len(".back")]
			s, err := twin.ReadStanding(m.Data)
			switch {
			case code(err) == twin.CodeBusy:
				busy++
				time.AfterFunc(100*time.Millisecond, func() { ask(device, batchOf(at(0), 1, 3)) })
			case err != nil:
				t.Fatal(err)
			case s.Position == at(3):
				done++
			default:
				ask(device, batchOf(at(0), 1, 3))
			}
		case <-time.After(60 * time.Second):
			t.Fatalf("%d of %d devices are through", done, devices)
		}
	}
	t.Logf("%d devices are through after %v, told %d times to try again", devices, time.Since(began), busy)
	harness.Eventually(t, func() error { // the last answer is on its way before its room is free
		q := c.hub.intake.queue
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.all.n != 0 || q.all.bytes != 0 || len(q.lines) != 0 {
			return fmt.Errorf("%d batches are still waiting", q.all.n)
		}
		return nil
	})
	if a := c.audited("d4999"); len(a) != 1 || a[0].Messages != 3 {
		t.Errorf("%+v", a)
	}
	n := 0
	if err := c.hub.Messages().Read(testContext(t), Filter{}, 0, func(Message) bool { n++; return true }); err != nil || n != 3*devices {
		t.Errorf("the hub holds %d messages, %v", n, err)
	}
}

func TestSpreadOfAFleet(t *testing.T) {
	for devices, want := range map[int]time.Duration{0: 0, 99: 0, 100: time.Second, 5000: 50 * time.Second, 1_000_000: twin.MaxSpread} {
		if got := spread(devices); got != want {
			t.Errorf("%d devices take %s, want %s", devices, got, want)
		}
	}
}
