package uplink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

// Queue is a lane's messages on the disk; *queue.Queue is one.
type Queue interface {
	// Epoch names the present life of the sequence. It may change at any time: what
	// is there then keeps its sequences, or is gone.
	Epoch() string
	// Read returns records behind after, in order: at least one when there is one, and
	// about maxBytes of them. What is missing between them is not on the disk.
	Read(ctx context.Context, after uint64, maxBytes int) ([]queue.Record, error)
	// Span is the oldest and the newest sequence that is there, and bytes on disk;
	// first is last+1 where nothing is.
	Span() (first, last uint64, bytes int64)
	// Remove lets go of what is up to a sequence.
	Remove(ctx context.Context, upTo uint64) error
	// Renew begins a new epoch; what is there keeps its sequences.
	Renew(ctx context.Context) error
	// Grown is closed by the next record.
	Grown() <-chan struct{}
}

// Lane is what is sent in one order.
type Lane struct {
	Name      string        // the route's
	Priority  int           // lower ones go first
	TTL       time.Duration // what waited longer is not sent; 0 waits for ever
	LiveFirst bool          // after an outage what is new goes at once, and what waited beside it, in twin.Late(Name)
	Queue     Queue
}

// lane is a Lane with what is known of it.
type lane struct {
	Lane
	env    *env
	state  state
	loaded bool
	usable bool   // the state is loaded, and is of the queue's epoch
	broken bool   // the state was unusable, or gone: once the hub has said what it has, there is a new epoch
	doubt  bool   // a write of the state failed: the disk may have what we do not
	start  uint64 // newest message at the start: a process before this one may have sent what is up to here
	live   side
	late   side

	refused spans // messages that the hub will not take

	saved   time.Time // when the state was last written
	removed uint64    // the disk was told
	swept   time.Time
	retry   backoff // of prepare
	upkeep  backoff // of clear and sweep
	tally   tally
}

// env is what all lanes share.
type env struct {
	disk      disk
	clock     queue.Clock
	alone     bool // there is no hub
	lateAfter time.Duration
	warn      func(error)
	random    func() float64 // 0 to 1
}

func newLane(l Lane, e *env) *lane {
	out := &lane{Lane: l, env: e}
	out.live = side{lane: out, wire: l.Name}
	out.late = side{lane: out, wire: twin.Late(l.Name), late: true}
	return out
}

// tend does what the lane needs on the disk.
func (l *lane) tend(ctx context.Context, now time.Time) {
	if l.retry.ready(now) {
		err := l.prepare(ctx, now)
		if l.usable = err == nil; l.usable {
			l.retry.worked()
		} else {
			l.retry.failed(err, now, l.env.random())
		}
	}
	if !l.usable || l.broken || !l.upkeep.ready(now) {
		return
	}
	if err := errors.Join(l.clear(ctx, now), l.sweep(ctx, now)); err != nil {
		l.upkeep.failed(err, now, l.env.random())
	} else {
		l.upkeep.worked()
	}
}

// prepare brings what is known in line with the disk: the state is loaded, and is
// of the queue's epoch.
func (l *lane) prepare(ctx context.Context, now time.Time) error {
	if err := l.load(now); err != nil {
		return err
	}
	if l.doubt {
		if err := l.settle(now); err != nil {
			return err
		}
	}
	epoch := l.Queue.Epoch()
	if epoch != l.state.Life.Epoch {
		return l.adopt(epoch, now)
	}
	if l.broken && (l.live.known || l.env.alone) {
		return l.renew(ctx, errors.New("nothing says what the hub was sent"), now)
	}
	if _, last, _ := l.Queue.Span(); last < l.state.Life.Known {
		return l.renew(ctx, fmt.Errorf("the disk lost its end: there are messages up to %d, there were up to %d", last, l.state.Life.Known), now)
	}
	return l.fit(now)
}

// load reads the state.
func (l *lane) load(now time.Time) error {
	if l.loaded {
		return nil
	}
	s, known, err := l.env.disk.read(l.Name)
	var broken *brokenError
	if err != nil && !errors.As(err, &broken) {
		return err
	}
	_, last, _ := l.Queue.Span()
	l.loaded, l.broken = true, broken != nil
	l.state, l.saved = s, now
	if s.Began {
		l.start = last
	}
	if broken != nil {
		l.env.warn(fmt.Errorf("lane %s: %w", l.Name, err))
	}
	if known {
		return nil
	}
	l.state = state{Life: life{Epoch: l.Queue.Epoch()}}
	if last > 0 {
		l.broken = true // somebody removed it
	}
	if l.broken {
		return nil
	}
	return l.save(l.state, now)
}

// settle finds out which state the disk has after a write that failed: of what is
// deferred it has to know what we know. A full disk has the old one.
func (l *lane) settle(now time.Time) error {
	err := l.save(l.state, now)
	if err == nil {
		return nil
	}
	there, known, failed := l.env.disk.read(l.Name)
	if failed != nil || !known || there.Life.Epoch != l.state.Life.Epoch || !slices.Equal(there.Life.Deferred, l.state.Life.Deferred) {
		return errors.Join(err, failed)
	}
	l.doubt = false
	return nil
}

// save writes a state and, once it is on the disk, takes it.
func (l *lane) save(s state, now time.Time) error {
	if _, last, _ := l.Queue.Span(); l.Queue.Epoch() == s.Life.Epoch {
		s.Life.Known = max(s.Life.Known, last)
	}
	s.Life = s.Life.tidied()
	if err := l.env.disk.write(l.Name, s); err != nil {
		l.doubt = true
		return fmt.Errorf("lane %s: %w", l.Name, err)
	}
	l.doubt, l.state, l.saved = false, s, now
	return nil
}

// renew begins a new epoch of the queue, because of why.
func (l *lane) renew(ctx context.Context, why error, now time.Time) error {
	l.env.warn(fmt.Errorf("lane %s: %w: starting a new epoch", l.Name, why))
	if err := l.Queue.Renew(ctx); err != nil {
		return fmt.Errorf("lane %s: %w", l.Name, err)
	}
	failpoint.Reach("uplink.renewed")
	return l.adopt(l.Queue.Epoch(), now)
}

// adopt takes up an epoch that the queue has got. Of the one before, the hub is
// told what it does not know of. It begins with what is on the disk; or before that,
// where the bound has dropped what the hub does not have.
func (l *lane) adopt(epoch string, now time.Time) error {
	first, last, _ := l.Queue.Span()
	before := l.state.Life
	s := state{Life: life{Epoch: epoch, Known: last}, Old: l.state.Old}
	s.Life.Base = min(first-1, before.removable(max(before.Live, before.Base), before.Late))
	if before.Known > before.Base && !l.broken {
		s.Old = &before
	}
	if err := l.save(s, now); err != nil {
		return err
	}
	l.broken, l.start, l.removed, l.refused = false, 0, 0, nil
	l.tally.told = [2][]span{}
	l.live.restart()
	l.late.restart()
	return nil
}

// rank orders epochs: the present one is above the one before, and that above
// all others.
func (l *lane) rank(epoch string) int {
	switch {
	case epoch == l.state.Life.Epoch:
		return 2
	case l.state.Old != nil && epoch == l.state.Old.Epoch:
		return 1
	}
	return 0
}

// at is where p is in the present life.
func (l *lane) at(p twin.Position) uint64 {
	if p.Epoch == l.state.Life.Epoch {
		return p.Seq
	}
	return l.state.Life.Base
}

// owes says whether account has to be given of the life before, when the hub
// has the side at p; and from where on.
func (l *lane) owes(late bool, p twin.Position) (at uint64, owes bool) {
	old := l.state.Old
	if old == nil || l.rank(p.Epoch) == 2 {
		return 0, false
	}
	at = old.Base
	if p.Epoch == old.Epoch {
		at = p.Seq
	}
	if late {
		from, _, ok := old.lateFrom(at, l.oldLive())
		return from, ok
	}
	return at, at < old.end(false)
}

// oldLive is up to where the hub has the lane in the life before.
func (l *lane) oldLive() uint64 {
	switch p := l.live.place; {
	case !l.live.known:
		return l.state.Old.Base
	case p.Epoch == l.state.Old.Epoch:
		return p.Seq
	case l.rank(p.Epoch) == 2:
		return l.state.Old.end(false)
	}
	return l.state.Old.Base
}

// confirmed takes that the hub has a side at its place.
func (l *lane) confirmed(ctx context.Context, s *side, now time.Time) error {
	_, last, _ := l.Queue.Span()
	if at := s.place.Epoch; !s.late && l.state.Began && l.rank(at) == 0 && at != "" && at != l.state.Behind {
		l.broken = true // of what was before, nothing is known
		return l.renew(ctx, fmt.Errorf("the hub holds messages of epoch %s, of which the disk knows nothing", short(at)), now)
	}
	if s.place.Epoch == l.state.Life.Epoch {
		switch {
		case s.place.Seq > max(last, l.state.Life.Base):
			return l.renew(ctx, fmt.Errorf("the hub holds messages up to %d, the disk up to %d", s.place.Seq, last), now)
		case !l.state.Began:
			l.broken = true // of what was deferred, nothing is known
			l.state.Life.Live, l.state.Life.Late = s.place.Seq, s.place.Seq
		case s.late:
			l.state.Life.Late = max(l.state.Life.Late, s.place.Seq)
		default:
			l.state.Life.Live = max(l.state.Life.Live, s.place.Seq)
		}
	}
	return l.fit(now)
}

// fit takes off a deferred range what the hub has got as messages.
func (l *lane) fit(now time.Time) error {
	if !l.live.seen {
		return nil
	}
	next, changed := l.state, false
	switch at := l.live.place; l.rank(at.Epoch) {
	case 2:
		next.Life, changed = next.Life.shrunk(at.Seq)
	case 1:
		var old life
		old, changed = next.Old.shrunk(at.Seq)
		next.Old = &old
	}
	if !changed {
		return nil
	}
	l.live.reset()
	return l.save(next, now)
}

// begin makes sure that a process after this one knows that something was sent.
func (l *lane) begin(now time.Time) error {
	if l.state.Began {
		return nil
	}
	next := l.state
	next.Began, next.Behind = true, l.live.place.Epoch
	return l.save(next, now)
}

// How often the disk is told what is not needed any more. A save and what Remove does
// cost a few syncs.
const (
	removePause  = time.Second
	removeHurry  = 50 * time.Millisecond // when much of what is on the disk is not needed
	removeLittle = 1 << 20               // bytes on disk, below which there is no hurry
)

// clear removes what the hub has from the disk.
func (l *lane) clear(ctx context.Context, now time.Time) error {
	if !l.live.known || l.live.place.Epoch != l.state.Life.Epoch || len(l.state.Life.Deferred) > 0 && !l.late.known {
		return nil
	}
	upTo := l.state.Life.removable(l.live.place.Seq, l.lateAt())
	first, last, bytes := l.Queue.Span()
	if upTo <= l.removed || upTo < first {
		return nil
	}
	pause := removePause
	if bytes > removeLittle && upTo-first > (last-first)/2 {
		pause = removeHurry
	}
	if now.Sub(l.saved) < pause {
		return nil
	}
	// On a full disk it is not written, and has to be removed all the more: the state
	// only tells why it is gone.
	err := l.save(l.state, now)
	l.saved = now
	failpoint.Reach("uplink.confirmed")
	if failed := l.Queue.Remove(ctx, upTo); failed != nil {
		return errors.Join(err, fmt.Errorf("lane %s: %w", l.Name, failed))
	}
	l.removed = upTo
	return err
}

// lateAt is up to where the hub has the late lane.
func (l *lane) lateAt() uint64 { return l.at(l.late.place) }
