package uplink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// link carries batches to the hub, and keeps nothing of data. An answer, if any,
// comes later, by id.
type link interface {
	send(id uint64, data []byte) error
}

// sender sends what lanes have. One goroutine at a time calls it; it never waits
// but for the disk, and what it does depends on nothing but what it is told.
type sender struct {
	env     *env
	link    link // nil when the device stands alone
	lanes   []*lane
	flights map[uint64]*flight
	pace    pace
	id      uint64 // of the newest flight
	live    int    // batches sent since the last one of a late side
	buffer  []byte // of the last batch that was sent; none while nothing is under way
}

// flight is a batch that was sent, and not answered.
type flight struct {
	batch
	side      *side
	size      int           // bytes of items
	before    twin.Position // where the side stood, as far as was known
	seen      bool          // it was known
	era, run  int           // of the side
	sent, end time.Time     // when it was; when it is given up
	dead      bool          // it was given up; an answer still tells where the lane stands
}

func newSender(e *env, l link) *sender {
	return &sender{env: e, link: l, flights: map[uint64]*flight{}, pace: pace{window: firstWindow}}
}

// setLanes takes the lanes that there are from now on.
func (s *sender) setLanes(lanes []Lane) {
	var all []*lane
	for _, config := range lanes {
		i := slices.IndexFunc(s.lanes, func(l *lane) bool { return l.Name == config.Name && l.Queue == config.Queue })
		l := newLane(config, s.env)
		if i >= 0 {
			l = s.lanes[i]
			l.Lane = config
		}
		all = append(all, l)
	}
	slices.SortStableFunc(all, func(a, b *lane) int { return cmp.Compare(a.Priority, b.Priority) })
	for id, f := range s.flights {
		if !slices.Contains(all, f.side.lane) {
			s.drop(f)
			delete(s.flights, id)
		}
	}
	s.lanes = all
}

// pump does all that can be done now. wake is when there may be more to do.
func (s *sender) pump(ctx context.Context, now time.Time) (wake time.Time) {
	s.giveUp(now)
	for _, l := range s.lanes {
		l.tend(ctx, now)
	}
	for s.link != nil {
		side := s.pick(now)
		if side == nil {
			break
		}
		if err := s.send(ctx, side, now); err != nil {
			side.retry.failed(fmt.Errorf("lane %s: %w", side.wire, err), now, s.env.random())
		}
	}
	if s.pace.flights == 0 {
		s.buffer = nil
	}
	return s.wake(now)
}

// pick chooses who sends next: lanes by priority; a late one when no other has
// anything, and after three others.
func (s *sender) pick(now time.Time) *side {
	var late *side
	for _, l := range s.lanes {
		if late == nil && s.may(&l.late, now) {
			late = &l.late
		}
	}
	if late != nil && s.live >= 3 {
		return late
	}
	for _, l := range s.lanes {
		if s.may(&l.live, now) {
			return &l.live
		}
	}
	return late
}

// may says whether a side has something to send, and may.
func (s *sender) may(side *side, now time.Time) bool {
	l := side.lane
	if !l.usable || l.doubt || l.broken && (side.late || side.known) || !side.retry.ready(now) {
		return false
	}
	if !side.known {
		return side.wants() && s.pace.flights < maxFlights
	}
	return s.pace.room(side.flights) && side.waits()
}

// errNothing says that what is there cannot be sent now.
var errNothing = errors.New("what waits cannot be told apart")

// send sends the next batch of a side, or asks where it stands.
func (s *sender) send(ctx context.Context, side *side, now time.Time) error {
	b := side.question()
	if side.known {
		var err error
		if b, err = s.compose(ctx, side, now); err != nil {
			return err
		}
	}
	s.id++
	f := &flight{batch: b, side: side, size: len(b.items), before: side.place, seen: side.seen, era: side.era, run: side.run, sent: now, end: now.Add(s.pace.timeout())}
	s.buffer = b.encode(s.buffer[:0])
	f.items = nil
	if err := s.link.send(s.id, s.buffer); err != nil {
		return fmt.Errorf("send to the hub: %w", err)
	}
	s.flights[s.id] = f
	s.pace.sent(f.size)
	if b.n == 0 {
		side.asking = true
		return nil
	}
	side.flights++
	side.sent = twin.Position{Epoch: b.Epoch, Seq: b.to}
	if s.live++; side.late {
		s.live = 0
	}
	if b.Epoch == side.lane.state.Life.Epoch {
		side.high = max(side.high, b.to)
		side.lane.tally.tell(side.late, b.told)
	}
	return nil
}

// compose makes the next batch of a side, with all on the disk that has to be
// there before it goes.
func (s *sender) compose(ctx context.Context, side *side, now time.Time) (batch, error) {
	size := s.pace.batch()
	if err := side.lane.begin(now); err != nil {
		return batch{}, err
	}
	b, err := side.next(ctx, size)
	if err != nil {
		return b, err
	}
	if !side.late {
		done, err := side.lane.postpone(size, now)
		if done {
			b, err = side.next(ctx, size)
		}
		if err != nil {
			return b, err
		}
	}
	if b.n == 0 {
		return b, errNothing
	}
	return b, nil
}

// errTimeout says that the hub did not answer in time.
var errTimeout = errors.New("the hub does not answer")

// maxDead is how many flights are remembered that were given up.
const maxDead = 64

// giveUp stops waiting for answers that should have come.
func (s *sender) giveUp(now time.Time) {
	slow := false
	for _, f := range s.flights {
		if f.dead || now.Before(f.end) {
			continue
		}
		slow = true
		s.drop(f)
		if f.run == f.side.run {
			f.side.suspect()
			f.side.retry.failed(fmt.Errorf("lane %s: %w", f.side.wire, errTimeout), now, s.env.random())
		}
	}
	if slow {
		s.pace.timedOut(now)
	}
	s.forget()
}

// drop stops waiting for the answer.
func (s *sender) drop(f *flight) {
	if !f.dead {
		f.dead = true
		s.pace.ended(f.size)
	}
}

// forget lets go of the oldest of what was given up.
func (s *sender) forget() {
	if len(s.flights) <= maxDead {
		return
	}
	var dead []uint64
	for id, f := range s.flights {
		if f.dead {
			dead = append(dead, id)
		}
	}
	slices.Sort(dead)
	for len(dead) > maxDead {
		delete(s.flights, dead[0])
		dead = dead[1:]
	}
}

// kick says that the link came up: nothing is waited for that went over the old
// one, and every lane is asked where it stands.
func (s *sender) kick() {
	for _, f := range s.flights {
		s.drop(f)
	}
	s.pace.timeouts = 0
	for _, l := range s.lanes {
		for _, side := range []*side{&l.live, &l.late} {
			side.suspect()
			side.retry.worked()
		}
	}
	s.forget()
}

// wake is when something is due that nobody will tell of.
func (s *sender) wake(now time.Time) time.Time {
	next := now.Add(maxSweep)
	sooner := func(t time.Time) {
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	for _, f := range s.flights {
		if !f.dead {
			sooner(f.end)
		}
	}
	for _, l := range s.lanes {
		sooner(l.retry.until)
		sooner(l.upkeep.until)
		sooner(l.live.retry.until)
		sooner(l.late.retry.until)
		sooner(l.swept.Add(l.sweepPause()))
		sooner(l.saved.Add(removeHurry))
		sooner(l.saved.Add(removePause))
	}
	return next
}
