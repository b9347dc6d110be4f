// Package uplink sends what waits in the queues of a device to the hub: in the
// hub's stream each message is once, in order per lane, and what is new need not wait
// behind what is old.
//
//	cursor  decides: what comes next in the lane and in the late lane beside it,
//	        for what a range stands, what nobody needs any more; without I/O
//	state   what a lane has to remember across a power cut, in a file
//	lane    a queue, its state, and the two sides that it has at the hub
//	sender  which side sends next, how much, what an answer or its absence means
//
// Where the hub has a lane, only the hub knows. It is asked after each start, each
// loss of the link and each doubt. A twin.Batch says behind what it belongs, so
// many may be under way, and one that comes twice, late or never does no harm.
//
// Every sequence of a queue is accounted for at the hub once: as a message, or in a
// range with the reason why it does not come. What expires is noted in the state
// before it leaves the disk; what is deferred, before the hub is told. The disk lets
// go of nothing else but what the hub has confirmed.
//
// It repeats messages, rather than to lose any, where the queue gets a new epoch
// while there is something in it: the disk lost its end, or the state file was broken
// or removed. They then come again under names of the new epoch. What the hub was not
// told of the old epoch, it is told as twin.LostWiped.
//
// Two processes must not send the same queue at the same time. What a former one
// has under way may come at any time.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

// Config says who sends where.
type Config struct {
	Device    string        // the device's name
	Hub       *nats.Conn    // reaches the hub while the link is up; stays the caller's. nil when the device stands alone: messages then only expire
	Dir       string        // of the state files, one per lane; made when it is not there
	Clock     queue.Clock   // which stamped the records
	LateAfter time.Duration // age from which on what waits is deferred; 0 is LateAfter
	Warn      func(error)   // told what a person should know, from Run's goroutine; may be nil
}

// Uplink sends while Run runs. Its other methods may be called by anybody at any
// time.
type Uplink struct {
	config Config
	sender *sender // Run's
	wake   chan struct{}

	mu     sync.Mutex
	lanes  []Lane // as they should be
	change bool   // Run has not seen lanes
	kicked bool   // Run has not seen the kick
	stats  map[string]Stats
}

// New makes an uplink with no lanes.
func New(config Config) *Uplink {
	if config.LateAfter == 0 {
		config.LateAfter = LateAfter
	}
	if config.Warn == nil {
		config.Warn = func(error) {}
	}
	u := &Uplink{config: config, wake: make(chan struct{}, 1), stats: map[string]Stats{}}
	u.sender = newSender(&env{
		disk: directory(config.Dir), clock: config.Clock, alone: config.Hub == nil, lateAfter: config.LateAfter,
		warn: config.Warn, random: rand.Float64,
	}, nil)
	return u
}

// SetLanes says which lanes are sent from now on. One that was there before, by name
// and queue, goes on; the state file of one that goes stays for when it comes back.
func (u *Uplink) SetLanes(lanes []Lane) {
	u.mu.Lock()
	u.lanes, u.change = slices.Clone(lanes), true
	u.mu.Unlock()
	u.nudge()
}

// Kick says that the link to the hub came up: whatever waits for time to pass, or
// for an answer over the old link, goes on at once.
func (u *Uplink) Kick() {
	u.mu.Lock()
	u.kicked = true
	u.mu.Unlock()
	u.nudge()
}

// Stats says how each lane stands, by its name.
func (u *Uplink) Stats() map[string]Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make(map[string]Stats, len(u.stats))
	for name, s := range u.stats {
		out[name] = s
	}
	return out
}

func (u *Uplink) nudge() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// Run sends until ctx ends. It is called once.
func (u *Uplink) Run(ctx context.Context) error {
	answers := make(chan *nats.Msg, 4*maxFlights)
	if u.config.Hub != nil {
		w := &wire{hub: u.config.Hub, subject: twin.UpMessages(u.config.Device), inbox: u.config.Hub.NewInbox()}
		sub, err := u.config.Hub.ChanSubscribe(w.inbox+".*", answers)
		if err != nil {
			return fmt.Errorf("uplink: listen for the hub's answers: %w", err)
		}
		defer sub.Unsubscribe()
		u.sender.link = w
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	watched := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range watched {
			stop()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if u.adopt() {
			for _, stop := range watched {
				stop()
			}
			clear(watched)
			for _, l := range u.sender.lanes {
				within, stop := context.WithCancel(ctx)
				watched[l.Name] = stop
				watching.Go(func() { u.watch(within, l.Queue) })
			}
		}
		timer.Reset(time.Until(u.sender.pump(ctx, time.Now())))
		u.publish()
		select {
		case <-ctx.Done():
			return nil
		case <-u.wake:
		case <-timer.C:
		case m := <-answers:
			u.answered(ctx, m)
			for range len(answers) {
				u.answered(ctx, <-answers)
			}
		}
	}
}

// Close writes down how far each queue has come. Where somebody removes one while
// nobody runs, the hub is then told exactly what was lost with it. It is called when
// Run has returned and the queues grow no more.
func (u *Uplink) Close() error {
	var errs []error
	for _, l := range u.sender.lanes {
		if _, last, _ := l.Queue.Span(); l.usable && !l.broken && last > l.state.Life.Known {
			errs = append(errs, l.save(l.state, time.Now()))
		}
	}
	return errors.Join(errs...)
}

// adopt hands to the sender what others said. It reports whether the lanes changed.
func (u *Uplink) adopt() bool {
	u.mu.Lock()
	lanes, change, kicked := u.lanes, u.change, u.kicked
	u.change, u.kicked = false, false
	u.mu.Unlock()
	if change {
		u.sender.setLanes(lanes)
	}
	if kicked {
		u.sender.kick()
	}
	return change
}

// watch wakes Run whenever the queue has grown.
func (u *Uplink) watch(ctx context.Context, q Queue) {
	for {
		grown := q.Grown()
		u.nudge()
		select {
		case <-grown:
		case <-ctx.Done():
			return
		}
	}
}

// publish has Stats say what is so now.
func (u *Uplink) publish() {
	stats := make(map[string]Stats, len(u.sender.lanes))
	for _, l := range u.sender.lanes {
		stats[l.Name] = l.stats()
	}
	u.mu.Lock()
	u.stats = stats
	u.mu.Unlock()
}

// answered passes on an answer.
func (u *Uplink) answered(ctx context.Context, m *nats.Msg) {
	id, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 10, 64)
	if err != nil {
		return
	}
	standing, err := readAnswer(m)
	u.sender.answered(ctx, id, standing.Position, err, time.Now())
}

func readAnswer(m *nats.Msg) (twin.Standing, error) {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return twin.Standing{}, errOffline
	}
	s, err := twin.ReadStanding(m.Data)
	if err == nil && s.Epoch == "" && s.Seq != 0 {
		err = errors.New("read standing: a sequence without an epoch")
	}
	return s, err
}

// wire is the link over NATS.
type wire struct {
	hub     *nats.Conn
	subject string
	inbox   string // answers come below it
}

func (w *wire) send(id uint64, data []byte) error {
	return w.hub.PublishRequest(w.subject, w.inbox+"."+strconv.FormatUint(id, 10), data)
}
