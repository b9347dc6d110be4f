package outbox

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/tidemark-edge/tidemark/twin"
)

func TestNext(t *testing.T) {
	e := func(seq uint64, drop string) entry { return entry{seq: seq, size: 10, drop: drop} }
	for _, c := range []struct {
		name        string
		settled     uint64
		window      []entry
		count, size int
		want        []span
	}{
		{"nothing", 0, nil, 9, 99, nil},
		{"all settled", 2, []entry{e(1, ""), e(2, "")}, 9, 99, nil},
		{"in order", 1, []entry{e(1, ""), e(2, ""), e(3, "")}, 9, 99, []span{{2, 2, ""}, {3, 3, ""}}},
		{"hole is the bound", 1, []entry{e(5, "")}, 9, 99, []span{{2, 4, twin.DroppedBound}, {5, 5, ""}}},
		{"hole within", 0, []entry{e(1, ""), e(4, "")}, 9, 99, []span{{1, 1, ""}, {2, 3, twin.DroppedBound}, {4, 4, ""}}},
		{"expired join", 0, []entry{e(1, "ttl"), e(2, "ttl"), e(3, "")}, 9, 99, []span{{1, 2, "ttl"}, {3, 3, ""}}},
		{"reasons do not join", 0, []entry{e(1, "ttl"), e(2, "damaged")}, 9, 99, []span{{1, 1, "ttl"}, {2, 2, "damaged"}}},
		{"count", 0, []entry{e(1, ""), e(2, ""), e(3, "")}, 2, 99, []span{{1, 1, ""}, {2, 2, ""}}},
		{"count ends after a hole", 0, []entry{e(3, "")}, 1, 99, []span{{1, 2, twin.DroppedBound}}},
		{"expired join beyond count", 0, []entry{e(1, "ttl"), e(2, "ttl"), e(3, "")}, 1, 99, []span{{1, 2, "ttl"}}},
		{"size", 0, []entry{e(1, ""), e(2, ""), e(3, "")}, 9, 20, []span{{1, 1, ""}, {2, 2, ""}}},
		{"one is always sent", 0, []entry{e(1, ""), e(2, "")}, 9, 5, []span{{1, 1, ""}}},
	} {
		cur := cursor{settled: c.settled}
		if got := cur.next(c.window, c.count, c.size); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestResumedBehind(t *testing.T) {
	c := cursor{epoch: "a", settled: 3}
	if err := c.resumed(twin.Resume{Epoch: "a", Seq: 9, Last: 7}, 8); !errors.Is(err, errBehind) || c.sure {
		t.Error(err)
	}
	if err := c.resumed(twin.Resume{Epoch: "b", Seq: 9, Last: 7}, 8); err != nil || c.settled != 3 || c.last != 7 || !c.sure {
		t.Errorf("%v, %+v", err, c)
	}
}

// world is a model of everything around a cursor: a disk with a bound, a
// network that loses, doubles and delays, a hub with other devices, and crashes.
type world struct {
	r       *rand.Rand
	c       cursor
	disk    []entry  // what is stored and neither dropped by the bound nor removed
	newest  uint64   // sequence of the newest message ever stored
	saved   uint64   // the settled sequence that survives a crash, at most the true one
	hub     []placed // the hub's stream, this device only
	hubSeq  uint64   // newest sequence of the hub's stream, other devices included
	delayed []flight // sent, not yet arrived: may arrive whenever, and twice
	expired uint64   // every message up to here is past its time to live
}

type placed struct {
	epoch string
	span
	at uint64
}

type flight struct {
	epoch  string
	batch  []span
	expect uint64
}

// last is the hub's newest message of the device.
func (w *world) last() placed {
	if len(w.hub) == 0 {
		return placed{}
	}
	return w.hub[len(w.hub)-1]
}

// arrive is the hub's rule: all of a batch or none, and only while the newest
// message is the expected one.
func (w *world) arrive(f flight) {
	if w.last().at != f.expect {
		return
	}
	for _, s := range f.batch {
		w.hubSeq++
		w.hub = append(w.hub, placed{f.epoch, s, w.hubSeq})
	}
}

func (w *world) chance(p float64) bool { return w.r.Float64() < p }

func (w *world) window() []entry {
	out := make([]entry, 0, len(w.disk))
	for _, e := range w.disk {
		if e.drop == "" && e.seq <= w.expired {
			e.drop = twin.DroppedTTL
		}
		out = append(out, e)
	}
	return out
}

// ask puts the question over a network that may lose it, or the answer.
func (w *world) ask(fault float64) {
	if w.chance(fault) {
		return
	}
	l := w.last()
	if err := w.c.resumed(twin.Resume{Epoch: l.epoch, Seq: l.to, Last: l.at}, w.newest); err != nil {
		panic(err) // this disk never goes back
	}
}

// send tries one batch over a network with the given chance of each fault.
func (w *world) send(fault float64) {
	if !w.c.sure {
		w.ask(fault)
	}
	if !w.c.sure {
		return
	}
	batch := w.c.next(w.window(), 1+w.r.IntN(8), 1+w.r.IntN(80))
	if len(batch) == 0 {
		return
	}
	f := flight{w.c.epoch, batch, w.c.last}
	w.c.doubt()
	lost := w.chance(fault) // or late
	if lost || w.chance(fault) {
		w.delayed = append(w.delayed, f) // late, or doubled
	}
	if !lost {
		w.arrive(f)
	}
	w.ask(fault)
}

func (w *world) step(fault float64) {
	switch w.r.IntN(10) {
	case 0, 1, 2:
		w.newest++
		w.disk = append(w.disk, entry{seq: w.newest, size: 1 + w.r.IntN(30)})
		if n := len(w.disk) - 20; n > 0 {
			w.disk = w.disk[n:] // the bound drops the oldest
		}
	case 3:
		w.hubSeq++ // another device
	case 4:
		if n := len(w.delayed); n > 0 && w.chance(fault) {
			i := w.r.IntN(n)
			w.arrive(w.delayed[i])
			if w.chance(0.5) {
				w.delayed = append(w.delayed[:i:i], w.delayed[i+1:]...)
			}
		}
	case 5:
		if w.chance(0.3) && len(w.disk) > 0 {
			w.expired = max(w.expired, w.disk[w.r.IntN(len(w.disk))].seq)
		}
	case 6: // what is settled gets saved, and removed in strides
		w.saved = w.c.settled
		if w.chance(0.3) {
			for len(w.disk) > 0 && w.disk[0].seq <= w.saved {
				w.disk = w.disk[1:]
			}
		}
	case 7:
		if w.chance(fault) { // crash: only the disk is left
			w.c = cursor{epoch: w.c.epoch, settled: w.saved}
		}
	default:
		w.send(fault)
	}
}

// check is the promise: the hub's stream has every sequence once and in order,
// as the message or in one dropped range.
func (w *world) check(t *testing.T, seed uint64) {
	at := uint64(0)
	for _, p := range w.hub {
		if p.from != at+1 {
			t.Fatalf("seed %d: hub has %+v after %d: %+v", seed, p, at, w.hub)
		}
		at = p.to
	}
}

// TestModel runs the cursor in many random worlds.
func TestModel(t *testing.T) {
	for seed := range uint64(3000) {
		w := &world{r: rand.New(rand.NewPCG(seed, 1)), c: cursor{epoch: "e"}}
		fault := w.r.Float64() * 0.6
		for range 400 {
			w.step(fault)
			w.check(t, seed)
		}
		for range 200 { // the network heals
			w.send(0)
		}
		w.check(t, seed)
		if got := w.last().to; got != w.newest {
			t.Fatalf("seed %d: the hub got to %d of %d", seed, got, w.newest)
		}
	}
}
