package hub

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

// at is a position of epoch e.
func at(seq uint64) twin.Position {
	if seq == 0 {
		return twin.Position{}
	}
	return twin.Position{Epoch: "e", Seq: seq}
}

// batchOf has the messages from to to of epoch e, whose bodies are their sequences.
func batchOf(prev twin.Position, from, to uint64) twin.Batch {
	b := twin.Batch{Lane: "default", Prev: prev, Epoch: "e", From: from}
	for seq := from; seq <= to; seq++ {
		b.Items = append(b.Items, twin.Item{Count: 1, Module: "sensor", Name: "n", Time: time.Unix(1, 0), Body: fmt.Append(nil, seq)})
	}
	return b
}

// hand sends a batch as a device and returns the answer.
func hand(t testing.TB, nc *nats.Conn, device string, b twin.Batch) (twin.Standing, error) {
	t.Helper()
	m, err := nc.Request(twin.UpMessages(device), b.Encode(), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return twin.ReadStanding(m.Data)
}

// stands hands over a batch and wants the lane to stand there then.
func stands(t testing.TB, nc *nats.Conn, device string, b twin.Batch, want twin.Position) {
	t.Helper()
	if got, err := hand(t, nc, device, b); err != nil || got.Position != want {
		t.Fatalf("%d to %d behind %v: the lane stands at %v, %v, want %v", b.From, b.To(), b.Prev, got.Position, err, want)
	}
}

// audited checks that every lane of a device is without fault, and returns them.
func (c *cloud) audited(device string) []Audit {
	c.t.Helper()
	out, err := c.hub.Messages().Audit(testContext(c.t), device)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, a := range out {
		if len(a.Faults) > 0 {
			c.t.Errorf("%s of %s: %v", a.Lane, device, a.Faults)
		}
	}
	return out
}

// came are the bodies of a device's messages in the hub's stream.
func (c *cloud) came(device, lane string) []string {
	c.t.Helper()
	var out []string
	if err := c.hub.Messages().Read(testContext(c.t), Filter{Device: device, Lane: lane, Module: "sensor"}, 0, func(m Message) bool {
		out = append(out, string(m.Body))
		return true
	}); err != nil {
		c.t.Fatal(err)
	}
	return out
}

// TestBatchIsStoredOnce (iotedge#6950) sends what a device sends that lost an
// answer, or a batch, or its order.
func TestBatchIsStoredOnce(t *testing.T) {
	c, nc := deviceOf(t, "a")
	stands(t, nc, "a", twin.Batch{Lane: "default"}, at(0))
	for _, step := range []struct {
		prev     twin.Position
		from, to uint64
		want     twin.Position
	}{
		{at(0), 1, 10, at(10)},
		{at(0), 1, 10, at(10)},   // the answer was lost, and the device knows of none
		{at(10), 1, 0, at(10)},   // a question
		{at(20), 21, 30, at(10)}, // one before it was lost
		{at(10), 11, 20, at(20)},
		{at(10), 11, 20, at(20)}, // it comes twice
		{at(20), 21, 30, at(30)},
		{at(20), 21, 40, at(40)}, // part of it is there
		{at(5), 6, 20, at(40)},   // it comes late
		{at(39), 40, 1000, at(1000)},
		{at(1000), 1001, 2000, at(2000)}, // as many as there may be
		{twin.Position{Epoch: "other", Seq: 2000}, 2001, 2010, at(2000)},
	} {
		stands(t, nc, "a", batchOf(step.prev, step.from, step.to), step.want)
	}
	next := batchOf(at(2000), 1, 3) // the device's disk was wiped
	next.Epoch = "f"
	stands(t, nc, "a", next, twin.Position{Epoch: "f", Seq: 3})
	stands(t, nc, "a", next, twin.Position{Epoch: "f", Seq: 3})
	stands(t, nc, "a", batchOf(at(2000), 2001, 2002), twin.Position{Epoch: "f", Seq: 3})
	if got := c.came("a", ""); !slices.Equal(got, append(numbers(1, 2000), "1", "2", "3")) {
		t.Errorf("the hub holds %d", len(got))
	}
	c.audited("a")
}

// TestRangesStandInThePlaceOfWhatIsMissing: what does not come is told with exact
// numbers, and one of which the hub holds a part is not stored.
func TestRangesStandInThePlaceOfWhatIsMissing(t *testing.T) {
	c, nc := deviceOf(t, "a")
	b := batchOf(at(0), 1, 2)
	b.Items = append(b.Items, twin.Item{Count: 1000, Reason: twin.LostTTL}, batchOf(at(1002), 1003, 1003).Items[0])
	stands(t, nc, "a", b, at(1003))
	more := twin.Batch{Lane: "default", Prev: at(900), Epoch: "e", From: 901, Items: []twin.Item{{Count: 200, Reason: twin.LostBound}}}
	stands(t, nc, "a", more, at(1003))
	more.Prev, more.From = at(1003), 1004
	stands(t, nc, "a", more, at(1203))
	more.Items = append(more.Items, twin.Item{Count: 7, Reason: twin.LostTTL})
	stands(t, nc, "a", more, at(1210))
	var lost []twin.Lost
	if err := c.hub.Messages().Read(testContext(t), Filter{Device: "a"}, 0, func(m Message) bool {
		if m.Lost != nil {
			lost = append(lost, *m.Lost)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if want := []twin.Lost{{Epoch: "e", From: 3, To: 1002, Reason: twin.LostTTL}, {Epoch: "e", From: 1004, To: 1203, Reason: twin.LostBound}, {Epoch: "e", From: 1204, To: 1210, Reason: twin.LostTTL}}; !slices.Equal(lost, want) {
		t.Errorf("%+v, want %+v", lost, want)
	}
	if a := c.audited("a"); a[0].Messages != 3 || a[0].Lost[twin.LostTTL] != 1007 || a[0].Lost[twin.LostBound] != 200 {
		t.Errorf("%+v", a)
	}
}

// TestLateLaneHasPiecesOfTheLane (iotedge#2486): what is new goes at once, and
// what waited beside it.
func TestLateLaneHasPiecesOfTheLane(t *testing.T) {
	c, nc := deviceOf(t, "a")
	deferred := func(prev, count uint64) twin.Batch {
		return twin.Batch{Lane: "default", Prev: at(prev), Epoch: "e", From: prev + 1, Items: []twin.Item{{Count: count, Reason: twin.LostDeferred}}}
	}
	late := func(prev, from, to uint64) twin.Batch {
		b := batchOf(at(prev), from, to)
		b.Lane = twin.Late("default")
		return b
	}
	stands(t, nc, "a", batchOf(at(0), 1, 10), at(10))
	stands(t, nc, "a", deferred(10, 90), at(100))
	stands(t, nc, "a", batchOf(at(100), 101, 110), at(110))
	stands(t, nc, "a", late(0, 11, 50), at(50))
	stands(t, nc, "a", late(0, 11, 50), at(50))
	stands(t, nc, "a", deferred(110, 10), at(120))
	stands(t, nc, "a", batchOf(at(120), 121, 121), at(121))
	stands(t, nc, "a", late(50, 51, 100), at(100))
	stands(t, nc, "a", late(100, 111, 115), at(115))
	if a := c.audited("a"); len(a) != 1 || a[0].Messages != 116 || a[0].Waiting != 5 {
		t.Errorf("%+v", a)
	}
	if got := c.came("a", twin.Late("default")); !slices.Equal(got, append(numbers(11, 100), numbers(111, 115)...)) {
		t.Errorf("late came %v", got)
	}
}

// TestOneCommitForManyDevices sends of many devices and lanes at once, each with
// pieces in no order, again and again, until all is there.
func TestOneCommitForManyDevices(t *testing.T) {
	c := newCloud(t)
	nc := c.operator()
	var all sync.WaitGroup
	for d := range 40 {
		device := fmt.Sprintf("d%d", d)
		all.Go(func() { scatter(t, nc, device, 200) })
	}
	all.Wait()
	for d := range 40 {
		if got := c.came(fmt.Sprintf("d%d", d), ""); !slices.Equal(got, numbers(1, 200)) {
			t.Errorf("d%d: %d", d, len(got))
		}
		c.audited(fmt.Sprintf("d%d", d))
	}
}

// scatter sends messages as a device whose link loses, doubles and swaps them,
// until the hub holds all. It speaks for any device, as an operator may.
func scatter(t testing.TB, nc *nats.Conn, device string, count uint64) {
	inbox := twin.Inbox(device, "") + "." + nats.NewInbox()[7:]
	answers, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Error(err)
		return
	}
	defer answers.Unsubscribe()
	r := rand.New(rand.NewPCG(1, uint64(len(device))+count))
	held, busy := uint64(0), 0
	for deadline := time.Now().Add(90 * time.Second); held < count; {
		if time.Now().After(deadline) {
			t.Errorf("%s: %d of %d are stored", device, held, count)
			return
		}
		var batches []twin.Batch
		for prev := held; prev < min(count, held+60); {
			to := min(count, prev+1+r.Uint64N(20))
			batches = append(batches, batchOf(at(prev), prev+1, to))
			prev = to
		}
		if r.IntN(3) == 0 {
			r.Shuffle(len(batches), func(i, j int) { batches[i], batches[j] = batches[j], batches[i] })
		}
		sent := 0
		for _, b := range batches {
			for range []int{0, 1, 1, 2}[r.IntN(4)] {
				if err := nc.PublishRequest(twin.UpMessages(device), inbox, b.Encode()); err != nil {
					continue // the hub is away
				}
				sent++
			}
		}
		for range sent {
			m, err := answers.NextMsg(500 * time.Millisecond)
			if err != nil {
				break // a hub that went away answers nothing
			}
			s, err := twin.ReadStanding(m.Data)
			var e *twin.Error
			if errors.As(err, &e) && (e.Code == twin.CodeBusy || e.Code == twin.CodeFailed) {
				busy++
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", device, err)
				return
			}
			held = max(held, s.Seq)
		}
	}
}

// TestBrokenBatchesAreRefused sends what no outbox sends.
func TestBrokenBatchesAreRefused(t *testing.T) {
	c, nc := deviceOf(t, "a")
	with := func(change func(*twin.Batch)) []byte {
		b := batchOf(at(0), 1, 3)
		change(&b)
		return b.Encode()
	}
	item := func(change func(*twin.Item)) []byte {
		return with(func(b *twin.Batch) { change(&b.Items[1]) })
	}
	for name, one := range map[string]struct {
		body []byte
		code int
	}{
		"nothing":          {nil, twin.CodeMalformed},
		"JSON":             {[]byte(`{}`), twin.CodeMalformed},
		"cut off":          {with(func(*twin.Batch) {})[:30], twin.CodeMalformed},
		"too large":        {make([]byte, twin.MaxBatch+1), twin.CodeTooLarge},
		"lane: none":       {with(func(b *twin.Batch) { b.Lane = "" }), twin.CodeMalformed},
		"lane: wildcard":   {with(func(b *twin.Batch) { b.Lane = "*" }), twin.CodeMalformed},
		"lane: rest":       {with(func(b *twin.Batch) { b.Lane = ">" }), twin.CodeMalformed},
		"lane: dots":       {with(func(b *twin.Batch) { b.Lane = "a.b" }), twin.CodeMalformed},
		"lane: space":      {with(func(b *twin.Batch) { b.Lane = "a b" }), twin.CodeMalformed},
		"lane: line":       {with(func(b *twin.Batch) { b.Lane = "a\r\nPUB x 1" }), twin.CodeMalformed},
		"lane: late twice": {with(func(b *twin.Batch) { b.Lane = "default:late:late" }), twin.CodeMalformed},
		"lane: only late":  {with(func(b *twin.Batch) { b.Lane = ":late" }), twin.CodeMalformed},
		"epoch: none":      {with(func(b *twin.Batch) { b.Epoch = "" }), twin.CodeMalformed},
		"epoch: line":      {with(func(b *twin.Batch) { b.Epoch = "e\r\nNats-Rollup: all" }), twin.CodeMalformed},
		"epoch: long":      {with(func(b *twin.Batch) { b.Epoch = strings.Repeat("e", maxEpoch+1) }), twin.CodeMalformed},
		"prev: no epoch":   {with(func(b *twin.Batch) { b.Prev.Seq = 3 }), twin.CodeMalformed},
		"prev: epoch":      {with(func(b *twin.Batch) { b.Prev.Epoch = "é" }), twin.CodeMalformed},
		"hole":             {with(func(b *twin.Batch) { b.Prev, b.From = at(5), 7 }), twin.CodeMalformed},
		"backwards":        {with(func(b *twin.Batch) { b.Prev, b.From = at(5), 5 }), twin.CodeMalformed},
		"late backwards":   {with(func(b *twin.Batch) { b.Lane, b.Prev, b.From = "default:late", at(5), 5 }), twin.CodeMalformed},
		"sequence 0":       {with(func(b *twin.Batch) { b.From = 0 }), twin.CodeMalformed},
		"huge range":       {item(func(i *twin.Item) { i.Reason, i.Count = twin.LostTTL, 1<<60 }), twin.CodeMalformed},
		"huge sequence":    {with(func(b *twin.Batch) { b.From = 1 << 62 }), twin.CodeMalformed},
		"empty range":      {item(func(i *twin.Item) { i.Reason, i.Count = twin.LostTTL, 0 }), twin.CodeMalformed},
		"reason":           {item(func(i *twin.Item) { i.Reason = "eaten" }), twin.CodeMalformed},
		"module: none":     {item(func(i *twin.Item) { i.Module = "" }), twin.CodeMalformed},
		"module: dots":     {item(func(i *twin.Item) { i.Module = "a.out.b" }), twin.CodeMalformed},
		"name: wildcard":   {item(func(i *twin.Item) { i.Name = ">" }), twin.CodeMalformed},
		"name: capital":    {item(func(i *twin.Item) { i.Name = "N" }), twin.CodeMalformed},
		"header: condition": {item(func(i *twin.Item) {
			i.Header = nats.Header{"Nats-Expected-Last-Sequence": {"0"}}
		}), twin.CodeMalformed},
		"header: rollup folded": {item(func(i *twin.Item) { i.Header = nats.Header{"nats-rollup": {"all"}} }), twin.CodeMalformed},
		"header: trace":         {item(func(i *twin.Item) { i.Header = nats.Header{"Nats-Trace-Dest": {"up.b.twin"}} }), twin.CodeMalformed},
		"header: sequence":      {item(func(i *twin.Item) { i.Header = nats.Header{"tidemark-seq": {"77"}} }), twin.CodeMalformed},
		"header: line":          {item(func(i *twin.Item) { i.Header = nats.Header{"a": {"b\r\nNats-Rollup: all"}} }), twin.CodeMalformed},
		"header: name":          {item(func(i *twin.Item) { i.Header = nats.Header{"a\r\nNats-Rollup": {"all"}} }), twin.CodeMalformed},
	} {
		m, err := nc.Request(twin.UpMessages("a"), one.body, 20*time.Second)
		if err != nil {
			t.Fatal(name, err)
		}
		var e *twin.Error
		if _, err := twin.ReadStanding(m.Data); !errors.As(err, &e) || e.Code != one.code {
			t.Errorf("%s: %v, want %d", name, err, one.code)
		}
	}
	if got := c.came("a", ""); len(got) != 0 {
		t.Errorf("the hub holds %v", got)
	}
	good := batchOf(at(0), 1, 3)
	good.Items[0].Header = nats.Header{"Content-Type": {"text/plain"}, "x": {"1", "2"}}
	stands(t, nc, "a", good, at(3))
	var first Message
	if err := c.hub.Messages().Read(testContext(t), Filter{Device: "a"}, 0, func(m Message) bool { first = m; return false }); err != nil {
		t.Fatal(err)
	}
	if first.Header.Get("Content-Type") != "text/plain" || len(first.Header["x"]) != 2 || len(first.Header) != 2 || !first.Time.Equal(time.Unix(1, 0)) || first.Lane != "default" {
		t.Errorf("%+v", first)
	}
}

func FuzzDelivery(f *testing.F) {
	f.Add(batchOf(at(0), 1, 3).Encode(), uint64(2))
	f.Add(twin.Batch{Lane: "default:late", Epoch: "e", From: 7, Items: []twin.Item{{Count: 9, Reason: twin.LostTTL}}}.Encode(), uint64(9))
	f.Fuzz(func(t *testing.T, raw []byte, seq uint64) {
		d := &delivery{device: "a", raw: raw}
		if d.unpack() != nil {
			return
		}
		for _, p := range []twin.Position{{}, d.batch.Prev, {Epoch: d.batch.Epoch, Seq: seq}} {
			got := d.behind(p)
			if len(got) > len(d.messages) {
				t.Errorf("%d of %d messages are to be stored", len(got), len(d.messages))
			}
			for _, m := range got {
				if !strings.HasPrefix(m.Subject, "messages.a.") || strings.ContainsAny(m.Subject, " *>\r\n") {
					t.Errorf("it is stored at %q", m.Subject)
				}
			}
		}
	})
}

// TestCommitWithOneWrongLane has several devices in one commit, and the hub wrong
// about one of them, because another hub stored in between: it looks again, and
// nothing is missing or there twice.
func TestCommitWithOneWrongLane(t *testing.T) {
	for name, own := range map[string]bool{"own server": true, "server of others": false} {
		t.Run(name, func(t *testing.T) { commitWithOneWrongLane(t, own) })
	}
}

func commitWithOneWrongLane(t *testing.T, own bool) {
	c := newCloud(t)
	nc := c.operator()
	i, err := newIntake(nc, nc, own, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	devices := []string{"a", "b", "c"}
	for _, device := range devices {
		stands(t, c.as(device), device, batchOf(at(0), 1, 3), at(3))
	}
	for name, wrong := range map[string]place{"behind": {at(2), 1}, "ahead": {at(5), 99}, "another epoch": {twin.Position{Epoch: "f", Seq: 3}, 2}} {
		i.lanes.moved(twin.Lane("b", "default"), wrong)
		before := c.audited("a")[0].Messages
		var all []*delivery
		for _, device := range devices {
			d := &delivery{device: device, reply: twin.Inbox(device, "") + ".x", raw: batchOf(at(before), before+1, before+3).Encode()}
			if e := d.unpack(); e != nil {
				t.Fatal(e)
			}
			i.queue.push(d)
			all = append(all, i.queue.pop())
		}
		ready := make(chan []*delivery, 1)
		ready <- all
		close(ready)
		i.store(testContext(t), ready)
		// Of a lane that is thought to be elsewhere nothing is stored; the device, which
		// is told where, asks again. The other hub does not know of any of it.
		i.lanes.forget(twin.Lane("b", "default"))
		for _, device := range devices {
			stands(t, c.as(device), device, batchOf(at(before), before+1, before+3), at(before+3))
			if got := c.came(device, ""); !slices.Equal(got, numbers(1, int(before+3))) {
				t.Errorf("%s: %s has %v", name, device, got)
			}
			c.audited(device)
		}
	}
}

// TestAnotherStoresBesideTheHub: what the hub believes of its own server's stream is
// wrong again and again, and what it sent ahead has to be given up.
func TestAnotherStoresBesideTheHub(t *testing.T) {
	c := newCloud(t)
	nc := c.operator()
	other, err := newIntake(nc, nc, true, func(err error) { t.Log(err) })
	if err == nil {
		err = other.open() // each takes a part of the requests
	}
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	var all sync.WaitGroup
	for d := range 8 {
		all.Go(func() { scatter(t, nc, fmt.Sprintf("d%d", d), 200) })
	}
	all.Wait()
	for d := range 8 {
		if got := c.came(fmt.Sprintf("d%d", d), ""); !slices.Equal(got, numbers(1, 200)) {
			t.Errorf("d%d: %d", d, len(got))
		}
		c.audited(fmt.Sprintf("d%d", d))
	}
}

// TestPlacesInMemoryAreBounded has more lanes than the hub remembers.
func TestPlacesInMemoryAreBounded(t *testing.T) {
	c := newCloud(t)
	c.hub.intake.lanes.most = 3
	for round := range uint64(3) {
		for _, device := range []string{"a", "b", "c", "d", "e", "f"} {
			stands(t, c.as(device), device, batchOf(at(round), round+1, round+1), at(round+1))
		}
	}
	c.hub.intake.lanes.mu.Lock()
	defer c.hub.intake.lanes.mu.Unlock()
	if n := len(c.hub.intake.lanes.places); n != 3 {
		t.Errorf("%d places are in memory", n)
	}
}

// TestQueueIsFair fills it: nobody takes the room of others, and whoever sends
// little does not wait behind whoever sends much.
func TestQueueIsFair(t *testing.T) {
	q := newBacklog()
	large := make([]byte, 1<<20)
	batch := func(device string, size int) *delivery { return &delivery{device: device, raw: large[:size]} }
	taken := 0
	for range 100 {
		if q.push(batch("greedy", 1000)) {
			taken++
		}
	}
	if taken != maxDeviceWaits {
		t.Errorf("one device has %d waiting", taken)
	}
	if q.push(batch("greedy", 1)) || !q.push(batch("modest", 1)) {
		t.Error("the wrong one is refused")
	}
	if a, b := q.pop(), q.pop(); a.device != "greedy" || b.device != "modest" {
		t.Errorf("%s comes before %s", a.device, b.device)
	}
	for n := 0; q.all.bytes <= crowded; n++ { // devices with one large batch each
		if !q.push(batch(fmt.Sprint("d", n), 1<<20)) {
			t.Fatal("refused: ", n)
		}
	}
	if q.push(batch("d0", 1)) || !q.push(batch("fresh", 1)) {
		t.Error("while it is crowded, only whoever has nothing waiting gets in")
	}
	for n := range maxWaits {
		q.push(batch(fmt.Sprint("e", n), 1<<20))
	}
	if q.all.bytes > maxWaitBytes || q.all.n > maxWaits {
		t.Errorf("%d batches of %d bytes are waiting", q.all.n, q.all.bytes)
	}
	var popped []*delivery
	for d := q.pop(); d != nil; d = q.pop() {
		popped = append(popped, d)
	}
	for _, d := range popped {
		q.done(d)
	}
	if q.all.n != 2 || len(q.lines) != 2 { // those that were popped first
		t.Errorf("%d are waiting, of %d devices", q.all.n, len(q.lines))
	}
}
