package uplink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// TestModel has a device and a hub in a world where everything goes wrong, and
// then nothing does any more; and looks whether the hub's stream gives account of each
// message. UPLINK_SEED repeats one world; UPLINK_SEEDS is how many there are.
func TestModel(t *testing.T) {
	seeds := 2000
	if testing.Short() {
		seeds = 300
	}
	counts := map[string]int{}
	first := 0
	if one := os.Getenv("UPLINK_SEED"); one != "" {
		first, _ = strconv.Atoi(one)
		seeds = 1
	}
	if many := os.Getenv("UPLINK_SEEDS"); many != "" {
		seeds, _ = strconv.Atoi(many)
	}
	for seed := first; seed < first+seeds; seed++ {
		w := newWorld(uint64(seed))
		w.run()
		if err := w.check(); err != nil {
			t.Fatalf("UPLINK_SEED=%d: %v\nwarned: %v\n%s", seed, err, w.warned, w.dump())
		}
		for k, n := range w.counts {
			counts[k] += n
		}
	}
	t.Log(counts)
	if seeds < 300 {
		return
	}
	for _, k := range []string{"crash", "restore", "deferred", "late", twin.LostTTL, twin.LostBound, twin.LostDamaged, twin.LostWiped, twin.LostSettled, "renewed", "wiped by hand", "lost end", "went back", "overtaken"} {
		if counts[k] == 0 {
			t.Errorf("no world had %q: the test does not test it", k)
		}
	}
}

func newWorld(seed uint64) *world {
	w := &world{
		random: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1000, 0), states: map[string][]byte{}, counts: map[string]int{},
	}
	w.booted = w.now
	w.hub = &fakeHub{w: w}
	for i := range 1 + w.random.IntN(2) {
		l := &fakeLane{poison: map[uint64]bool{}}
		l.queue = &fakeQueue{w: w, lane: l, grown: make(chan struct{}), ids: map[string]map[uint64]uint64{}}
		l.Lane = Lane{Name: fmt.Sprintf("l%d", i), Priority: w.random.IntN(3), LiveFirst: !w.chance(4), Queue: l.queue}
		if w.chance(2) {
			l.TTL = time.Minute
		}
		l.queue.newEpoch()
		w.lanes = append(w.lanes, l)
	}
	w.boot()
	w.sender.pump(context.Background(), w.now) // the lanes have states before there is anything in them
	return w
}

// boot starts the device's process.
func (w *world) boot() {
	w.life++
	if w.chance(2) {
		w.boots++
		w.booted = w.now
	}
	e := &env{disk: w, clock: w.clock(), lateAfter: 2 * time.Second, random: w.random.Float64, warn: func(err error) { w.warned = append(w.warned, err) }}
	w.sender = newSender(e, fakeLink{w, w.life})
	var lanes []Lane
	for _, l := range w.lanes {
		l.queue.floor = 0
		lanes = append(lanes, l.Lane)
	}
	w.sender.setLanes(lanes)
}

// on does something in the device's process, which may be the end of it.
func (w *world) on(do func()) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			w.counts["crash"]++
			w.danger = false
			w.boot()
			w.danger = true
		}
	}()
	do()
}

func (w *world) run() {
	w.danger = true
	evil := w.chance(3) // damage that no queue can hide
	for range 150 + w.random.IntN(300) {
		w.step(evil)
	}
	w.danger, w.full = false, false
	w.quiet()
}

func (w *world) step(evil bool) {
	l := w.lanes[w.random.IntN(len(w.lanes))]
	w.sender.pace.window = minWindow
	switch n := w.random.IntN(100); {
	case n < 22:
		for range 1 + w.random.IntN(3) {
			l.queue.store(1 + w.random.IntN(4))
		}
		if w.chance(40) {
			l.poison[uint64(len(l.names)-1)] = true
		}
	case n < 45:
		w.on(func() { w.sender.pump(context.Background(), w.now) })
	case n < 62:
		w.request()
	case n < 78:
		w.on(w.answer)
	case n < 84:
		w.now = w.now.Add(time.Duration(w.random.IntN(4000)) * time.Millisecond)
	case n < 86:
		w.on(w.sender.kick)
	case n < 88:
		w.faults()
	case n < 89:
		w.now = w.now.Add(time.Duration(w.random.IntN(90)) * time.Second)
	case n < 91:
		l.queue.drop()
	case n < 92 && w.chance(3):
		w.restore()
	case n < 93 && w.chance(2):
		w.on(func() { panic(crash{}) })
	case n < 94:
		w.full = w.chance(4)
	case n < 95 && (l.copy == nil || w.chance(2)) && w.durable(l.Name).Began: // nobody knows an older one from a new one
		l.copy = l.queue.copy()
	case n < 95 && evil && w.chance(3):
		w.damage(l)
	}
}

// request takes one request to the hub, or loses it, or takes it there twice.
func (w *world) request() {
	if len(w.requests) == 0 {
		return
	}
	i := 0
	if w.chance(4) {
		i = w.random.IntN(len(w.requests)) // another way is faster
	}
	r := w.requests[i]
	if !w.chance(8) {
		w.requests = slices.Delete(w.requests, i, i+1) // otherwise it comes again
	}
	if w.chance(10) {
		return
	}
	if r.life != w.life {
		w.counts["overtaken"]++
	}
	at, err := w.hub.take(r.data)
	if w.chance(12) {
		err = &twin.Error{Code: []int{twin.CodeBusy, twin.CodeFailed}[w.random.IntN(2)]} // after all, it was stored or not
	}
	if w.chance(10) {
		return
	}
	w.answers = append(w.answers, answer{r.life, r.id, at, err})
}

func (w *world) answer() {
	if len(w.answers) == 0 {
		return
	}
	i := 0
	if w.chance(4) {
		i = w.random.IntN(len(w.answers))
	}
	a := w.answers[i]
	if !w.chance(8) {
		w.answers = slices.Delete(w.answers, i, i+1)
	}
	if a.life == w.life && !w.chance(10) {
		w.sender.answered(context.Background(), a.id, a.at, a.refused, w.now)
		w.mayStand()
	}
}

// faults cuts the link: requests and answers get lost, or nobody is there.
func (w *world) faults() {
	switch w.random.IntN(3) {
	case 0:
		w.requests = nil
	case 1:
		w.answers = nil
	case 2:
		for _, r := range w.requests {
			if r.life == w.life {
				w.answers = append(w.answers, answer{r.life, r.id, twin.Position{}, errOffline})
			}
		}
		w.requests = nil
	}
}

// restore has the hub go on from an older copy. What is under way to it is lost
// with its connections.
func (w *world) restore() {
	w.requests = nil
	if n := len(w.hub.log); n > 0 {
		keep := n - w.random.IntN(n+1)
		// A batch is stored whole.
		w.hub.log = w.hub.log[:keep]
		w.counts["restore"]++
	}
}

// damage breaks what the device has on its disk.
func (w *world) damage(l *fakeLane) {
	w.danger = false
	switch w.random.IntN(5) {
	case 0:
		l.queue.wipe()
	case 1:
		w.boot()
		l.queue.loseEnd(1 + w.random.IntN(3))
	case 2:
		delete(w.states, l.Name)
		l.renewed = true
		w.boot()
	case 3:
		if l.copy == nil {
			break
		}
		w.boot()
		l.queue.goBack(l.copy)
		w.talk() // before there is anything new; otherwise nobody can know
	case 4:
		w.states[l.Name] = []byte(`{"version":1}`)
		l.renewed = true
		w.boot()
	}
	w.danger = true
}

// quiet lets everything come to an end: the link is up and nothing gets lost.
func (w *world) quiet() {
	for round := range 400 {
		idle := w.talk()
		if idle && round > 20 && w.settled() {
			return
		}
		w.now = w.now.Add(300 * time.Millisecond)
		if round == 10 {
			w.sender.kick() // a hub that was restored was away
		}
	}
}

// talk has the device send all that it may, and the hub answer all. It reports
// whether there was nothing.
func (w *world) talk() (idle bool) {
	w.sender.pump(context.Background(), w.now)
	idle = len(w.requests) == 0
	for _, r := range w.requests {
		at, err := w.hub.take(r.data)
		if r.life == w.life {
			w.answers = append(w.answers, answer{r.life, r.id, at, err})
		}
	}
	w.requests = nil
	for _, a := range w.answers {
		if a.life == w.life {
			w.sender.answered(context.Background(), a.id, a.at, a.refused, w.now)
			w.mayStand()
		}
	}
	w.answers = nil
	return idle
}

func (w *world) settled() bool {
	for _, l := range w.sender.lanes {
		if !l.usable || l.live.waits() || l.late.waits() || !l.live.known || l.retry.err != nil || l.live.retry.err != nil {
			return false
		}
	}
	return true
}

// check says what is wrong with what the hub has.
func (w *world) check() error {
	errs := slices.Clone(w.wrong)
	for _, l := range w.lanes {
		if err := w.checkLane(l); err != nil {
			errs = append(errs, fmt.Errorf("lane %s (%s, ttl %v): %w", l.Name, map[bool]string{true: "live first", false: "strict"}[l.LiveFirst], l.TTL, err))
		}
	}
	if !w.settled() {
		var why []error
		for _, l := range w.sender.lanes {
			why = append(why, l.retry.err, l.live.retry.err, l.late.retry.err, l.upkeep.err, fmt.Errorf("live waits %v, late waits %v, known %v", l.live.waits(), l.late.waits(), l.live.known))
		}
		errs = append(errs, fmt.Errorf("it does not come to an end: %w", errors.Join(why...)))
	}
	return errors.Join(errs...)
}

type place struct {
	epoch string
	seq   uint64
}

func (w *world) checkLane(l *fakeLane) error {
	delivered := map[uint64][]place{} // by message
	had := map[place]bool{}           // messages
	lost := map[place][]string{}
	deferred := map[place]bool{}
	latest := map[bool]entry{}
	for _, e := range w.hub.log {
		late := e.lane == twin.Late(l.Name)
		if e.lane != l.Name && !late {
			continue
		}
		before := latest[late]
		latest[late] = e
		if before.epoch == e.epoch && (e.From <= before.To || !late && e.From != before.To+1) {
			return fmt.Errorf("%s: %d follows %d of epoch %s", e.lane, e.From, before.To, e.epoch)
		}
		for seq := e.From; seq <= e.To; seq++ {
			p := place{e.epoch, seq}
			if late && !deferred[p] && w.counts["restore"] == 0 { // one side may be faster than the other to notice that
				return fmt.Errorf("%s: %v comes late, and was not deferred", e.lane, p)
			}
			switch {
			case e.Reason == "":
				if had[p] {
					return fmt.Errorf("%v is there twice", p)
				}
				if id, ok := l.queue.ids[e.epoch][seq]; (!ok || id != e.id) && !l.lostEnd {
					return fmt.Errorf("%v is message %d, and not %d", p, e.id, id)
				}
				had[p] = true
				delivered[e.id] = append(delivered[e.id], p)
			case e.Reason == twin.LostDeferred && !late:
				deferred[p] = true
			default:
				lost[p] = append(lost[p], e.Reason)
				w.counts[e.Reason]++
			}
		}
		if late {
			w.counts["late"]++
		} else if e.Reason == twin.LostDeferred {
			w.counts["deferred"]++
		}
	}
	for _, e := range w.hub.log {
		if l.renewed && w.counts["restore"] > 0 {
			break // nobody knows any more what was deferred
		}
		if e.lane == twin.Late(l.Name) && !deferred[place{e.epoch, e.From}] {
			return fmt.Errorf("%s: %v came late, and was never deferred", e.lane, e)
		}
	}
	for id, n := range l.names {
		if p := (place{n.epoch, n.seq}); l.lostEnd && had[p] && len(delivered[uint64(id)]) == 0 {
			continue // what had the name before was under way when the disk lost it
		}
		if err := l.checkMessage(uint64(id), n, delivered[uint64(id)], lost, w.counts["restore"] > 0, w.now); err != nil {
			return err
		}
	}
	return nil
}

// checkMessage wants one account of each message.
func (l *fakeLane) checkMessage(id uint64, n name, delivered []place, lost map[place][]string, restored bool, now time.Time) error {
	reasons := lost[place{n.epoch, n.seq}]
	total := len(delivered) + len(reasons)
	what := fmt.Sprintf("message %d, %s %d: delivered as %v, lost because of %v", id, n.epoch, n.seq, delivered, reasons)
	others := 0 // accounts under names of later epochs
	for _, epoch := range slices.Sorted(maps.Keys(l.queue.ids)) {
		if other, named := l.queue.ids[epoch][n.seq]; epoch != n.epoch && (!named || other == id) {
			others += len(lost[place{epoch, n.seq}])
		}
	}
	switch {
	case l.lostEnd && n.gone, n.wiped && total == 0:
		return nil
	case n.dropped && n.epoch != l.Name+"-e1" && total == 0:
		return nil // before anybody saw that the queue was wiped
	case l.renewed && (n.left || n.dropped) && total == 0:
		return nil // it was deferred, or the hub forgot it; and nothing says so any more
	case l.renewed || l.lostEnd:
		if total+others == 0 && !restored { // what was confirmed before, and is forgotten on both sides
			return errors.New(what)
		}
	case total != 1:
		return errors.New(what)
	}
	if len(reasons) == 0 || l.renewed || l.lostEnd {
		return nil
	}
	so := map[string]bool{
		twin.LostTTL:     l.TTL > 0 && (now.Sub(n.at) > l.TTL),
		twin.LostBound:   n.dropped || restored, // a full disk does not remember what was confirmed
		twin.LostSettled: restored,
		twin.LostDamaged: l.poison[id],
		twin.LostWiped:   n.wiped,
	}
	if !so[reasons[0]] {
		return fmt.Errorf("that is not so: %s", what)
	}
	return nil
}

func (w *world) dump() string {
	out := ""
	for _, e := range w.hub.log {
		out += fmt.Sprintf("%-8s %s %d-%d %s %d\n", e.lane, e.epoch, e.From, e.To, e.Reason, e.id)
	}
	for lane, s := range w.states {
		out += fmt.Sprintf("%s %s\n", lane, s)
	}
	return out
}
