package uplink

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

// crash is what a fake panics with when the power is cut in it.
type crash struct{}

// world is a device, a hub and what is between them, in memory, in one goroutine
// and in one order that a seed decides.
type world struct {
	random *rand.Rand
	now    time.Time
	booted time.Time
	boots  int
	hub    *fakeHub
	lanes  []*fakeLane
	states map[string][]byte // what is durable
	full   bool              // the disk takes no state
	danger bool              // the power may be cut anywhere
	sender *sender
	life   int // of the device's process

	requests []request
	answers  []answer
	warned   []error
	wrong    []error        // what must never happen, at no step
	counts   map[string]int // how often something worth testing happened
}

type request struct {
	life int
	id   uint64
	data []byte
}

type answer struct {
	life    int
	id      uint64
	at      twin.Position
	refused error
}

// fakeLane is a lane and everything that ever was stored in it.
type fakeLane struct {
	Lane
	queue   *fakeQueue
	names   []name // by message: under which it was stored first
	renewed bool   // it had to begin a new epoch
	lostEnd bool   // its disk lost what was synced
	poison  map[uint64]bool
	copy    *diskCopy
}

type name struct {
	epoch   string
	seq     uint64
	wiped   bool      // by hand: nobody can know of it
	gone    bool      // with the end of the disk
	dropped bool      // by the bound
	at      time.Time // when it was stored
	left    bool      // the disk before there was the present epoch
}

// fakeQueue is a queue that keeps what is synced.
type fakeQueue struct {
	w       *world
	lane    *fakeLane
	epoch   string
	epochs  int
	records []queue.Record
	last    uint64
	floor   uint64
	grown   chan struct{}
	ids     map[string]map[uint64]uint64 // by epoch and sequence
}

func (q *fakeQueue) Epoch() string          { return q.epoch }
func (q *fakeQueue) Grown() <-chan struct{} { return q.grown }

func (q *fakeQueue) Span() (first, last uint64, bytes int64) {
	first = q.last + 1
	for _, r := range q.records {
		bytes += int64(len(r.Items))
	}
	if len(q.records) > 0 {
		first = q.records[0].From
	}
	return min(max(first, q.floor+1), q.last+1), q.last, bytes
}

func (q *fakeQueue) Read(_ context.Context, after uint64, maxBytes int) (out []queue.Record, err error) {
	q.w.maybeCrash()
	if q.w.danger && q.w.chance(200) {
		return nil, errors.New("the disk does not answer")
	}
	have := 0
	for _, r := range q.records {
		if r.Last() > after && have < maxBytes {
			r.Epoch = q.epoch
			out, have = append(out, r), have+len(r.Items)
		}
	}
	return out, nil
}

func (q *fakeQueue) Remove(_ context.Context, upTo uint64) error {
	q.w.mayRemove(q, upTo)
	q.w.maybeCrash()
	q.floor = max(q.floor, min(upTo, q.last))
	if q.w.chance(2) {
		for len(q.records) > 1 && q.records[0].Last() <= q.floor {
			q.records = q.records[1:]
		}
	}
	q.w.maybeCrash()
	return nil
}

func (q *fakeQueue) Renew(context.Context) error {
	q.w.maybeCrash()
	q.newEpoch()
	q.lane.renewed = true
	q.w.counts["renewed"]++
	q.w.maybeCrash()
	return nil
}

func (q *fakeQueue) newEpoch() {
	q.epochs++
	q.epoch, q.floor = fmt.Sprintf("%s-e%d", q.lane.Name, q.epochs), 0
	q.ids[q.epoch] = map[uint64]uint64{}
	for i := range q.lane.names {
		q.lane.names[i].left = true
	}
	for _, r := range q.records {
		for seq := r.From; seq <= r.Last(); seq++ {
			id := messageOf(r, seq)
			q.ids[q.epoch][seq] = id
			q.lane.names[id].left = false
		}
	}
}

func messageOf(r queue.Record, seq uint64) uint64 {
	items, err := twin.ReadItems(r.Items, r.Count, r.From)
	if err != nil {
		panic(err)
	}
	return binary.BigEndian.Uint64(items[seq-r.From].Body)
}

// store stores n messages as one record.
func (q *fakeQueue) store(n int) {
	r := queue.Record{From: q.last + 1, Count: n, Stored: q.w.clock().Stamp()}
	for i := range n {
		body := make([]byte, 8, 1400)
		id := uint64(len(q.lane.names))
		binary.BigEndian.PutUint64(body, id)
		seq := q.last + 1 + uint64(i)
		q.lane.names = append(q.lane.names, name{epoch: q.epoch, seq: seq, at: q.w.now})
		q.ids[q.epoch][seq] = id
		r.Items = twin.Item{Count: 1, Module: "m", Name: "o", Time: time.Unix(0, 0), Body: body[:8+q.w.random.IntN(1300)]}.Append(r.Items)
	}
	q.records, q.last = append(q.records, r), r.Last()
	close(q.grown)
	q.grown = make(chan struct{})
}

// drop drops the oldest record, as the bound does.
func (q *fakeQueue) drop() {
	if len(q.records) > 1 {
		for seq := q.records[0].From; seq <= q.records[0].Last(); seq++ {
			q.lane.names[messageOf(q.records[0], seq)].dropped = true
		}
		q.records = q.records[1:]
	}
}

// wipe removes everything, as a hand does.
func (q *fakeQueue) wipe() {
	for i := range q.lane.names {
		n := &q.lane.names[i]
		n.wiped = n.wiped || n.epoch != "" // may be known, or not
	}
	q.records, q.last = nil, 0
	q.newEpoch()
	q.w.counts["wiped by hand"]++
}

// loseEnd loses the newest records.
func (q *fakeQueue) loseEnd(n int) {
	for ; n > 0 && len(q.records) > 1; n-- {
		r := q.records[len(q.records)-1]
		for seq := r.From; seq <= r.Last(); seq++ {
			q.lane.names[messageOf(r, seq)].gone = true
			delete(q.ids[q.epoch], seq)
		}
		q.records = q.records[:len(q.records)-1]
		q.last = r.From - 1
	}
	q.floor = min(q.floor, q.last)
	q.lane.lostEnd = true
	q.w.counts["lost end"]++
}

// copy is what a device's disk was at some time.
type diskCopy struct {
	queue   fakeQueue
	state   []byte
	known   bool
	stored  int // messages
	records []queue.Record
}

func (q *fakeQueue) copy() *diskCopy {
	c := &diskCopy{queue: *q, stored: len(q.lane.names), records: slices.Clone(q.records)}
	c.state, c.known = q.w.states[q.lane.Name]
	return c
}

// goBack makes the disk what it was.
func (q *fakeQueue) goBack(c *diskCopy) {
	for i := c.stored; i < len(q.lane.names); i++ {
		q.lane.names[i].gone = true
	}
	q.epoch, q.last, q.floor, q.records = c.queue.epoch, c.queue.last, c.queue.floor, slices.Clone(c.records)
	delete(q.w.states, q.lane.Name)
	if c.known {
		q.w.states[q.lane.Name] = c.state
	}
	q.lane.lostEnd = true
	q.w.counts["went back"]++
}

// fakeHub does what twin.Batch says.
type fakeHub struct {
	w    *world
	log  []entry
	ever map[place]bool // what account was ever given of, also where it went back since
}

// entry is one message in the hub's stream.
type entry struct {
	lane  string
	epoch string
	span
	id uint64 // of a message
}

func (h *fakeHub) place(lane string) (p twin.Position) {
	for _, e := range slices.Backward(h.log) {
		if e.lane == lane {
			return twin.Position{Epoch: e.epoch, Seq: e.To}
		}
	}
	return p
}

func (h *fakeHub) take(data []byte) (twin.Position, error) {
	b, err := twin.ReadBatch(data)
	if err != nil {
		return twin.Position{}, &twin.Error{Code: twin.CodeMalformed, Message: err.Error()}
	}
	at := h.place(b.Lane)
	var entries []entry
	from := b.From
	for _, i := range b.Items {
		e := entry{lane: b.Lane, epoch: b.Epoch, span: span{from, from + i.Count - 1, i.Reason}}
		if i.Reason == "" {
			e.id = binary.BigEndian.Uint64(i.Body)
			if h.w.poisoned(b.Lane, e.id) {
				return at, &twin.Error{Code: twin.CodeMalformed, Message: "a name that is none"}
			}
		}
		entries, from = append(entries, e), e.To+1
	}
	late := b.Lane[len(b.Lane)-1] == 'e' && len(b.Lane) > 5
	if len(b.Items) > 0 && b.Prev.Epoch == b.Epoch && (b.From <= b.Prev.Seq || !late && b.From != b.Prev.Seq+1) {
		panic(fmt.Sprintf("batch of %s from %d does not follow %d", b.Lane, b.From, b.Prev.Seq))
	}
	switch {
	case at == b.Prev:
		h.store(entries)
	case at.Epoch == b.Epoch && b.Prev.Epoch == b.Epoch && at.Seq >= b.From-1:
		for i, e := range entries {
			if e.From == at.Seq+1 {
				h.store(entries[i:])
				break
			}
		}
	}
	return h.place(b.Lane), nil
}

func (h *fakeHub) store(entries []entry) {
	h.log = append(h.log, entries...)
	if h.ever == nil {
		h.ever = map[place]bool{}
	}
	for _, e := range entries {
		for seq := e.From; seq <= e.To && e.Reason != twin.LostDeferred; seq++ {
			h.ever[place{e.epoch, seq}] = true
		}
	}
}

// mayRemove: the disk lets go of what the hub has, or knows why it will not come. One
// that is older than it was does not know all that was deferred.
func (w *world) mayRemove(q *fakeQueue, upTo uint64) {
	if q.lane.lostEnd {
		return
	}
	noted := w.durable(q.lane.Name).Life.Noted
	for _, r := range q.records {
		for seq := r.From; seq <= min(r.Last(), upTo); seq++ {
			if _, in := noted.at(seq); !in && !w.hub.ever[place{q.epoch, seq}] {
				w.wrong = append(w.wrong, fmt.Errorf("lane %s: %d of epoch %s leaves the disk, and the hub has no account of it", q.lane.Name, seq, q.epoch))
			}
		}
	}
}

// maySend: before anything goes to the hub, the disk knows of what is deferred what the
// process does. Otherwise the next process would send it as what it was not.
func (w *world) maySend(data []byte) {
	b, err := twin.ReadBatch(data)
	if err != nil || len(b.Items) == 0 {
		return
	}
	for _, l := range w.sender.lanes {
		if there := w.durable(l.Name); (b.Lane == l.Name || b.Lane == twin.Late(l.Name)) && !slices.Equal(there.Life.Deferred, l.state.Life.Deferred) {
			w.wrong = append(w.wrong, fmt.Errorf("%s: a batch goes while %v is deferred, and the disk says %v", b.Lane, l.state.Life.Deferred, there.Life.Deferred))
		}
	}
}

// mayStand: where the hub holds more of an epoch than the disk, the next messages
// would get names that others have.
func (w *world) mayStand() {
	for _, l := range w.sender.lanes {
		_, last, _ := l.Queue.Span()
		if p := l.live.place; l.live.known && p.Epoch == l.Queue.Epoch() && p.Seq > last {
			w.wrong = append(w.wrong, fmt.Errorf("lane %s: the hub holds messages up to %d, the disk up to %d, and the epoch goes on", l.Name, p.Seq, last))
		}
	}
}

// durable is the state that the next process finds; empty where it finds none.
func (w *world) durable(lane string) state {
	s, err := decodeState(w.states[lane])
	if err != nil {
		return state{}
	}
	return s
}

func (w *world) poisoned(lane string, id uint64) bool {
	for _, l := range w.lanes {
		if l.Name == lane || twin.Late(l.Name) == lane {
			return l.poison[id]
		}
	}
	return false
}

func (w *world) chance(oneIn int) bool { return w.random.IntN(oneIn) == 0 }

func (w *world) maybeCrash() {
	if w.danger && w.chance(60) {
		panic(crash{})
	}
}

func (w *world) clock() queue.Clock {
	return queue.Clock{Boot: fmt.Sprint(w.boots), Up: func() time.Duration { return w.now.Sub(w.booted) }}
}

// disk of the world.
func (w *world) read(lane string) (state, bool, error) {
	data, known := w.states[lane]
	if !known {
		return state{}, false, nil
	}
	s, err := decodeState(data)
	if err != nil {
		delete(w.states, lane)
		return state{}, false, &brokenError{err}
	}
	return s, true, nil
}

func (w *world) write(lane string, s state) error {
	w.maybeCrash()
	if w.full || w.danger && w.chance(100) {
		return errors.New("no space left on device")
	}
	data, err := s.encode()
	if err != nil {
		return err
	}
	w.states[lane] = data
	w.maybeCrash()
	if w.danger && w.chance(20) {
		return errors.New("the directory cannot be synced")
	}
	return nil
}

// link of one process.
type fakeLink struct {
	w    *world
	life int
}

func (l fakeLink) send(id uint64, data []byte) error {
	l.w.maySend(data)
	l.w.maybeCrash()
	if l.w.danger && l.w.chance(100) {
		return errors.New("the connection is closed")
	}
	l.w.requests = append(l.w.requests, request{l.life, id, bytes.Clone(data)})
	l.w.maybeCrash()
	return nil
}
