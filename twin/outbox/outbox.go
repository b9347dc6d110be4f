// Package outbox takes what modules send, keeps it on the device's disk, and has it
// go where the routes say: to the hub, or to other modules of the device.
//
//	intake   devices.<d>.modules.<m>.out.<name> → routes that take it → as many as
//	         wait, as one record per route, synced once → answer {"seq": n}
//	queue    one route's messages on the disk
//	uplink   queues → the hub: in order per route, each once
//	deliver  queue → devices.<d>.modules.<m>.in.<input> → the module's answer
//
// A message is answered once it is on the disk for every route that takes it. One
// that no route takes is answered too: it is counted, and a person is told once.
//
// When a route's bound is reached, the oldest messages go, and whoever reads the
// hub's stream is told which; or, where the route says so, the new message is refused.
// A refused message is on no route: routes that may refuse come first. Only where a disk
// fails in between may a message be on a part of its routes, and the module is told
// that it failed.
//
// Between a module and the disk delivery is at least once: a module that gets
// no answer does not know, and may send again. From the disk to the hub see uplink.
// From the disk to another module it is at least once and in order.
//
// Nothing here depends on a window for duplicates, nor on the wall clock.
//
// The twins of the device are sent beside it, newest document only: a state
// needs no queue.
package outbox

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
	upstream "github.com/tidemark-edge/tidemark/twin/outbox/uplink"
)

// Config says what is queued for whom. Zero bounds take the defaults.
type Config struct {
	Device   string        // the device's name
	StateDir string        // the agent's: JetStream's files are in jetstream/ below it, ours in outbox/
	MaxBytes int64         // of all queues on disk; default DefaultMaxBytes
	TTL      time.Duration // of routes that say none: a message that waited longer is dropped; default DefaultTTL
	Twins    Twins         // sent beside the messages; nil sends none
	Warn     func(error)   // told what a person should know and no call returns, from any goroutine; may be nil
}

// Defaults of Config.
const (
	DefaultMaxBytes = 256 << 20
	DefaultTTL      = 2 * time.Hour
)

// Outbox runs from Open to Close.
type Outbox struct {
	config Config
	local  *nats.Conn // to the queues and the modules
	hub    *nats.Conn // to the hub; nil when the device stands alone
	clock  queue.Clock
	uplink *upstream.Uplink
	kick   *kicker
	counts counts
	stop   context.CancelFunc
	done   sync.WaitGroup

	routing sync.Mutex // held while lanes are opened and deleted

	mu      sync.Mutex      // guards what is below; never held during I/O
	running context.Context // of the loops; nil before they start
	table   *table          // the routes, as they should be
	lanes   []*lane         // of the routes, and those that drain; nil before the first could be opened
	plan    *plan           // what the intake goes by
	former  map[key]rule    // routes of a former run that are gone
}

// Open starts taking messages in, and passing them on, by the routes that the
// device had last; by schema.DefaultRoute when it never had any. local is a
// connection inside the device with every permission on the leaf; hub is one that
// reaches the hub while the link is up (leaf.ConnectHub), nil when there is none.
// Both stay the caller's, to close after Close.
func Open(ctx context.Context, local, hub *nats.Conn, config Config) (*Outbox, error) {
	o, err := newOutbox(local, hub, config)
	if err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	before := o.stored()
	o.former = rulesOf(before.Former)
	if o.table, err = newTable(before.Routes, o.config.MaxBytes); err != nil {
		// The bound of the agent's configuration became smaller, say.
		o.config.Warn(fmt.Errorf("the routes of before cannot be used, messages go by the default route until there are others: %w", err))
		o.table, err = newTable(nil, o.config.MaxBytes)
	}
	if err == nil {
		err = o.arrange(ctx)
	}
	if err != nil && len(o.lanes) == 0 {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	if err != nil {
		o.config.Warn(err)
	}
	if err := o.start(); err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	return o, nil
}

func newOutbox(local, hub *nats.Conn, config Config) (*Outbox, error) {
	if err := schema.CheckName(config.Device); err != nil {
		return nil, fmt.Errorf("device %w", err)
	}
	if config.MaxBytes == 0 {
		config.MaxBytes = DefaultMaxBytes
	}
	if config.TTL == 0 {
		config.TTL = DefaultTTL
	}
	if config.StateDir == "" || config.MaxBytes < queue.MinBytes || config.TTL < 0 {
		return nil, fmt.Errorf("state directory %q, bound %d bytes, ttl %v: want a directory, at least %d bytes, and no negative time",
			config.StateDir, config.MaxBytes, config.TTL, queue.MinBytes)
	}
	if config.Warn == nil {
		config.Warn = func(error) {}
	}
	clock, err := queue.SystemClock()
	if err != nil {
		return nil, err
	}
	o := &Outbox{config: config, local: local, hub: hub, clock: clock, kick: newKicker()}
	o.uplink = upstream.New(upstream.Config{
		Device: config.Device, Hub: hub, Dir: filepath.Join(o.dir(), "lanes"), Clock: clock, Warn: config.Warn,
	})
	return o, nil
}

// dir is where files of ours are.
func (o *Outbox) dir() string { return filepath.Join(o.config.StateDir, "outbox") }

// jetstream is where the leaf's server keeps JetStream's accounts.
func (o *Outbox) jetstream() string {
	return filepath.Join(o.config.StateDir, "jetstream", "jetstream")
}

func (o *Outbox) start() error {
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	in := &intake{outbox: o, waiting: make(chan *nats.Msg, maxGather)}
	if err := in.subscribe(ctx); err != nil {
		stop()
		return err
	}
	o.done.Go(func() { in.run(ctx) })
	o.done.Go(func() {
		if err := o.uplink.Run(ctx); err != nil {
			o.config.Warn(err)
		}
	})
	o.done.Go(func() { o.tend(ctx) })
	if o.hub != nil && o.config.Twins != nil {
		u := &uplink{outbox: o, twins: o.config.Twins}
		o.done.Go(func() { u.run(ctx) })
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running = ctx
	o.deliverAll()
	return nil
}

// Close stops. What is on disk stays there for the next Open.
func (o *Outbox) Close() error {
	o.stop()
	o.done.Wait()
	if err := o.uplink.Close(); err != nil {
		return fmt.Errorf("close outbox: %w", err)
	}
	return nil
}

// Kick says that the link to the hub came up: whatever waits for time to pass
// or for an answer over the old link goes on at once.
func (o *Outbox) Kick() {
	o.kick.all()
	o.uplink.Kick()
}

// Route has messages go by these routes from now on; by schema.DefaultRoute when
// there are none. It is written to the disk, for a device that boots offline. Where the
// error is that the routes cannot be, nothing is changed; any other problem is
// mended beside, and Stats says which routes do not take messages yet. The same routes
// again change nothing.
func (o *Outbox) Route(ctx context.Context, routes []schema.Route) error {
	t, err := newTable(routes, o.config.MaxBytes)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	o.mu.Lock()
	same, former := o.table.same(t), o.formerRoutes(t)
	o.mu.Unlock()
	if same {
		return nil
	}
	if err := o.store(saved{t.routes, former}); err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	o.mu.Lock()
	o.table = t
	o.mu.Unlock()
	return o.arrange(ctx)
}

// tendEvery is how often lanes that could not be opened are tried again, and those
// that have drained are looked for.
const tendEvery = 2 * time.Second

// tend opens what could not be opened, and deletes what has drained.
func (o *Outbox) tend(ctx context.Context) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	var before string
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := o.arrange(ctx)
		switch {
		case err == nil:
			before = ""
		case ctx.Err() == nil && err.Error() != before:
			before = err.Error()
			o.config.Warn(err)
		}
	}
}

// kicker wakes every loop that waits, by closing a channel that all of them
// look at.
type kicker struct {
	mu sync.Mutex
	ch chan struct{}
}

func newKicker() *kicker { return &kicker{ch: make(chan struct{})} }

func (k *kicker) all() {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.ch)
	k.ch = make(chan struct{})
}

// next is closed by the next kick.
func (k *kicker) next() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ch
}

// within returns a context that also ends when kicked is closed, so that an
// answer that will never come is not waited for.
func within(ctx context.Context, kicked <-chan struct{}, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	go func() {
		select {
		case <-kicked:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
