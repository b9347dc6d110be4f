package uplink

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

// plainWorld has lanes and nothing that goes wrong.
func plainWorld(lanes ...Lane) *world {
	w := &world{random: rand.New(rand.NewPCG(1, 1)), now: time.Unix(1000, 0), states: map[string][]byte{}, counts: map[string]int{}}
	w.booted = w.now
	w.hub = &fakeHub{w: w}
	for _, config := range lanes {
		l := &fakeLane{poison: map[uint64]bool{}, Lane: config}
		l.queue = &fakeQueue{w: w, lane: l, grown: make(chan struct{}), ids: map[string]map[uint64]uint64{}}
		l.Queue = l.queue
		l.queue.newEpoch()
		w.lanes = append(w.lanes, l)
	}
	w.boot()
	w.turn(time.Millisecond) // the question
	return w
}

// turn sends what can be sent, and has each answered after a time.
func (w *world) turn(took time.Duration) (sent []string) {
	w.sender.pump(context.Background(), w.now)
	requests := w.requests
	w.requests = nil
	w.now = w.now.Add(took)
	for _, r := range requests {
		if b, err := twin.ReadBatch(r.data); err == nil && len(b.Items) > 0 {
			sent = append(sent, b.Lane)
		}
		at, err := w.hub.take(r.data)
		w.sender.answered(context.Background(), r.id, at, err, w.now)
	}
	return sent
}

// Complaint iotedge#2486: days of backlog block what is new.
func TestWhatIsNewGoesBeforeWhatWaited(t *testing.T) {
	w := plainWorld(Lane{Name: "l0", LiveFirst: true})
	l := w.lanes[0]
	for range 200 {
		l.queue.store(1)
	}
	w.now = w.now.Add(time.Hour)
	l.queue.store(1) // 201
	w.sender.pace.window = minWindow
	for range 4 {
		w.turn(time.Millisecond)
		l.queue.store(1)
		w.sender.pace.window = minWindow
	}
	for range 100 {
		w.turn(time.Millisecond)
	}
	if err := w.check(); err != nil {
		t.Fatal(err)
	}
	first := w.hub.log[0]
	if first.Reason != twin.LostDeferred || first.From != 1 || first.To != 201 {
		t.Fatalf("the lane begins with %+v", first)
	}
	place := map[uint64]int{}
	for i, e := range w.hub.log {
		if e.Reason == "" {
			place[e.id] = i
		}
	}
	for new := uint64(201); new < 205; new++ {
		if place[new] > place[100] {
			t.Errorf("message %d came behind the backlog, at %d", new, place[new])
		}
	}
	if got := w.sender.lanes[0].stats(); got.Pending != 0 || got.Deferred != 0 || got.Delivered != 205 {
		t.Errorf("stats %+v", got)
	}
}

// What a former process has under way may come after this one has deferred it. The
// lane then stands where the range ends, and it would come late once more.
func TestWhatAFormerProcessSentIsNotDeferred(t *testing.T) {
	w := plainWorld(Lane{Name: "l0", LiveFirst: true})
	l := w.lanes[0]
	for range 8 {
		l.queue.store(4)
	}
	w.sender.pace.window = 1 << 20
	w.sender.pump(context.Background(), w.now)
	former := w.requests
	w.requests = nil
	w.now = w.now.Add(time.Hour)
	w.boot()
	w.booted = w.now.Add(-time.Hour)
	w.turn(time.Millisecond) // the question
	w.sender.pace.window = minWindow
	w.sender.pump(context.Background(), w.now)
	for _, r := range former {
		if _, err := w.hub.take(r.data); err != nil {
			t.Fatal(err)
		}
	}
	if w.hub.place("l0").Seq != 32 {
		t.Fatalf("the former process had not sent it all: %+v", w.hub.place("l0"))
	}
	for range 30 {
		w.turn(time.Millisecond)
	}
	if err := w.check(); err != nil {
		t.Fatal(err)
	}
}

func TestAStrictLaneKeepsItsOrder(t *testing.T) {
	w := plainWorld(Lane{Name: "l0"})
	for range 100 {
		w.lanes[0].queue.store(2)
	}
	w.now = w.now.Add(time.Hour)
	for range 50 {
		w.turn(time.Millisecond)
		w.lanes[0].queue.store(1)
	}
	w.turn(time.Millisecond)
	if err := w.check(); err != nil {
		t.Fatal(err)
	}
	for i, e := range w.hub.log {
		if e.Reason != "" || e.id != uint64(i) {
			t.Fatalf("%d is %+v", i, e)
		}
	}
}

func TestUrgentLanesGoFirstAndLateOnesGetAQuarter(t *testing.T) {
	w := plainWorld(Lane{Name: "l0", Priority: 5, LiveFirst: true}, Lane{Name: "l1", Priority: 1})
	slow, urgent := w.lanes[0], w.lanes[1]
	for range 400 {
		slow.queue.store(1)
	}
	w.now = w.now.Add(time.Hour)
	slow.queue.store(1)
	w.turn(time.Millisecond) // the range
	for range 400 {
		urgent.queue.store(1)
		slow.queue.store(1)
	}
	w.now = w.now.Add(time.Millisecond)
	var order []string
	for len(order) < 40 {
		w.sender.pace.window = minWindow
		order = append(order, w.turn(time.Millisecond)...)
	}
	late, others, overtook := 0, 0, 0
	for _, lane := range order {
		switch lane {
		case "l0:late":
			late++
		case "l0":
			others++
		case "l1":
			overtook++
		}
	}
	if late < 9 || late > 11 {
		t.Errorf("%d of %d batches were late ones: %v", late, len(order), order)
	}
	// A lane may always have one under way, so that it need not wait for others.
	if others > overtook {
		t.Errorf("a lane that is less urgent was served before: %v", order)
	}
}

// Complaint iotedge#6006: upstream stops after a bad link.
func TestASlowLinkGetsSmallBatchesAndAFastOneLargeOnes(t *testing.T) {
	w := plainWorld(Lane{Name: "l0"})
	for range 2000 {
		w.lanes[0].queue.store(4)
	}
	for range 30 {
		w.turn(5 * time.Millisecond)
	}
	if w.sender.pace.batch() < 200<<10 {
		t.Errorf("on a fast link a batch has %d bytes", w.sender.pace.batch())
	}
	w.lanes[0].queue.store(4)
	for range 400 {
		w.lanes[0].queue.store(4)
		w.turn(3 * time.Second)
	}
	if w.sender.pace.window != minWindow {
		t.Errorf("on a slow link %d bytes are under way", w.sender.pace.window)
	}
	if err := w.check(); err != nil {
		t.Fatal(err)
	}
}

func TestOneMessageThatTheHubRefusesIsGivenUpAlone(t *testing.T) {
	w := plainWorld(Lane{Name: "l0"})
	l := w.lanes[0]
	l.queue.store(40)
	l.poison[17] = true
	for range 40 {
		w.turn(time.Millisecond)
	}
	if err := w.check(); err != nil {
		t.Fatal(err)
	}
	if len(w.warned) != 1 || !strings.Contains(w.warned[0].Error(), "message 18") {
		t.Errorf("warned %v", w.warned)
	}
	if s := w.sender.lanes[0].stats(); s.Delivered != 39 || s.Lost[twin.LostDamaged] != 1 || len(s.Ranges) != 1 || s.Ranges[0].From != 18 {
		t.Errorf("stats %+v", s)
	}
}

func TestABusyHubIsLeftAlone(t *testing.T) {
	w := plainWorld(Lane{Name: "l0"})
	w.lanes[0].queue.store(1)
	asked := 0
	for range 1000 {
		w.sender.pump(context.Background(), w.now)
		for _, r := range w.requests {
			asked++
			w.sender.answered(context.Background(), r.id, twin.Position{}, &twin.Error{Code: twin.CodeBusy, Message: "later"}, w.now)
		}
		w.requests = nil
		w.now = w.now.Add(10 * time.Millisecond)
	}
	if asked < 5 || asked > 30 {
		t.Errorf("it was asked %d times in 10 s", asked)
	}
	if s := w.sender.lanes[0].stats(); s.LastError == nil || s.Pending != 1 {
		t.Errorf("stats %+v", s)
	}
	w.now = w.now.Add(maxPause)
	w.turn(time.Millisecond)
	if s := w.sender.lanes[0].stats(); s.LastError != nil || s.Pending != 0 {
		t.Errorf("stats %+v", s)
	}
}

// Complaint iotedge#2674: while there is no hub, the disk fills with what nobody
// wants any more.
func TestWhatExpiredLeavesTheDiskWithoutAHub(t *testing.T) {
	w := plainWorld(Lane{Name: "l0", TTL: time.Minute})
	q := w.lanes[0].queue
	w.sender.link = nil
	for range 100 {
		q.store(3)
		w.now = w.now.Add(time.Second)
	}
	w.sender.pump(context.Background(), w.now)
	first, last, _ := q.Span()
	if first < 100 || first > 125 || last != 300 {
		t.Fatalf("%d to %d are there", first, last)
	}
	if s := w.sender.lanes[0].stats(); s.Lost[twin.LostTTL] != first-1 || s.Pending != last-first+1 {
		t.Errorf("stats %+v", s)
	}
	w.boots, w.booted = w.boots+1, w.now // and a wall clock that jumps is nothing to the ages
	w.boot()
	for range 10 {
		w.turn(time.Millisecond)
	}
	if err := w.check(); err != nil {
		t.Fatal(err)
	}
	if e := w.hub.log[0]; e.Reason != twin.LostTTL || e.From != 1 || e.To != first-1 {
		t.Errorf("the hub is told %+v", e)
	}
}

// An answer from before the hub went back says nothing of where it stands now.
func TestAnAnswerFromBeforeTheHubWentBackIsPassedOver(t *testing.T) {
	w := plainWorld(Lane{Name: "l0"})
	q := w.lanes[0].queue
	ctx := context.Background()
	q.store(2)
	w.turn(time.Millisecond)
	w.turn(time.Millisecond)
	w.sender.pump(ctx, w.now)
	q.store(2)
	w.sender.pump(ctx, w.now) // 3 and 4
	q.store(2)
	w.sender.pump(ctx, w.now) // 5 and 6
	first, second := w.requests[0], w.requests[1]
	w.requests = nil
	at, _ := w.hub.take(first.data)
	if at.Seq != 4 {
		t.Fatalf("the hub stands at %d", at.Seq)
	}
	w.hub.log = w.hub.log[:1]
	back, _ := w.hub.take(second.data)
	w.sender.answered(ctx, second.id, back, nil, w.now)
	w.sender.answered(ctx, first.id, at, nil, w.now)
	if l := w.sender.lanes[0]; l.live.place.Seq != 1 || l.state.Life.Live != 2 {
		t.Fatalf("it stands at %+v", l.live.place)
	}
	for range 20 {
		w.now = w.now.Add(time.Second)
		w.turn(time.Millisecond)
	}
	if n := len(w.hub.log); n != 6 {
		t.Fatalf("the hub has %d", n)
	}
}

// Two devices with one identity must not keep the hub busy with each other.
func TestTwoDevicesWithOneIdentityDoNotSpin(t *testing.T) {
	w := plainWorld(Lane{Name: "l0"})
	w.lanes[0].queue.store(1)
	asked := 0
	for i := range 6000 {
		w.sender.pump(context.Background(), w.now)
		for _, r := range w.requests {
			asked++
			if i%2 == 0 {
				w.hub.log = append(w.hub.log, entry{lane: "l0", epoch: "other", span: span{uint64(i + 1), uint64(i + 1), ""}})
			}
			at, err := w.hub.take(r.data)
			w.sender.answered(context.Background(), r.id, at, err, w.now)
		}
		w.requests = nil
		w.now = w.now.Add(10 * time.Millisecond)
	}
	if asked > 120 {
		t.Errorf("it was asked %d times in a minute", asked)
	}
}

// BenchmarkSender sends records of 1000 messages of 1 KB to a hub in memory that
// takes everything.
func BenchmarkSender(b *testing.B) {
	var items []byte
	for range 1000 {
		items = twin.Item{Count: 1, Module: "m", Name: "o", Time: time.Unix(0, 0), Body: make([]byte, 1000)}.Append(items)
	}
	q := &endless{items: items}
	e := &env{disk: directory(b.TempDir()), clock: queue.Clock{Boot: "b", Up: func() time.Duration { return 0 }}, warn: func(err error) { b.Fatal(err) }, random: rand.Float64, lateAfter: time.Hour}
	sink := &acknowledged{}
	s := newSender(e, sink)
	s.setLanes([]Lane{{Name: "l", Queue: q}})
	s.pump(context.Background(), time.Now())
	sink.answerAll(s)
	q.most = uint64(b.N) * 1000
	b.SetBytes(int64(len(items)))
	b.ResetTimer()
	for sink.at.Seq < q.most {
		s.pump(context.Background(), time.Now())
		sink.answerAll(s)
	}
}

// endless is a queue of equal records.
type endless struct {
	items []byte
	most  uint64
}

func (q *endless) Epoch() string                        { return "e" }
func (q *endless) Span() (uint64, uint64, int64)        { return 1, q.most, int64(q.most) * 1000 }
func (q *endless) Remove(context.Context, uint64) error { return nil }
func (q *endless) Renew(context.Context) error          { return nil }
func (q *endless) Grown() <-chan struct{}               { return nil }
func (q *endless) Read(_ context.Context, after uint64, maxBytes int) (out []queue.Record, err error) {
	for from := after/1000*1000 + 1; from <= q.most && (len(out) == 0 || len(out)*len(q.items) < maxBytes); from += 1000 {
		out = append(out, queue.Record{Epoch: "e", From: from, Count: 1000, Stored: queue.Stamp{Boot: "b"}, Items: q.items})
	}
	return out, nil
}

// acknowledged stores everything.
type acknowledged struct {
	waiting []request
	at      twin.Position
}

func (a *acknowledged) send(id uint64, data []byte) error {
	a.waiting = append(a.waiting, request{id: id, data: bytes.Clone(data)})
	return nil
}

func (a *acknowledged) answerAll(s *sender) {
	waiting := a.waiting
	a.waiting = nil
	for _, r := range waiting {
		// The header is enough: what takes a batch apart is not what is measured.
		b, _ := twin.ReadBatch(r.data)
		if len(b.Items) > 0 {
			a.at = twin.Position{Epoch: b.Epoch, Seq: b.To()}
		}
		s.answered(context.Background(), r.id, a.at, nil, time.Now())
	}
}
