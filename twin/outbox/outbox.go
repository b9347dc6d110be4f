// Package outbox keeps what modules send to the hub on the device's disk until
// the hub has it: in order, and exactly once in the hub's stream.
//
//	intake     devices.<d>.modules.<m>.out.<name> → as many as wait, in one atomic
//	           batch that is synced once → stream OUTBOX on the leaf → answer {"seq": n}
//	forwarder  OUTBOX → atomic batch with the condition "your newest message of
//	           this device is still number n" → stream of the hub → "how far do
//	           you hold this device?" → acknowledgement in OUTBOX
//
// That question is asked after each batch, after any error and any restart; the
// forwarder goes on from what the hub answers, and from nothing else.
//
// Nothing here depends on a window for duplicates, nor on the wall clock.
//
// The stream is bounded in bytes; when it is full the oldest messages go. A
// message that waited longer than its time to live is not sent. Both are told
// to the hub as a twin.Dropped, in the place of what is missing, so that the
// sequences in the hub's stream, messages and ranges together, have no hole.
//
// Between a module and the disk delivery is at least once: a module that gets
// no answer does not know, and may send again. From the disk on it is exactly
// once, with two exceptions, each of which repeats rather than loses, under the
// same epoch and sequence: the hub's stream has dropped every message of this
// device since the device was cut off in the middle of a batch; or the hub's
// stream was wiped.
//
// The twins of the device are sent beside it, newest document only: a state
// needs no queue.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/schema"
)

// Config says what is queued for whom. Zero bounds take the defaults.
type Config struct {
	Device   string        // the device's name
	MaxBytes int64         // on disk, the oldest messages go first; default DefaultMaxBytes
	TTL      time.Duration // a message that waited longer is dropped; default DefaultTTL
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
	local  *nats.Conn // to OUTBOX
	hub    *nats.Conn // to the hub; nil when the device stands alone
	clock  clock
	queue  *queue
	state  state
	kick   *kicker
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// Open starts taking messages in, and passing them on. local is a connection
// inside the device with every permission on the leaf; hub is one that reaches
// the hub while the link is up (leaf.ConnectHub), nil when there is none. Both
// stay the caller's, to close after Close.
func Open(ctx context.Context, local, hub *nats.Conn, config Config) (*Outbox, error) {
	if err := schema.CheckName(config.Device); err != nil {
		return nil, fmt.Errorf("open outbox: device %w", err)
	}
	if config.MaxBytes == 0 {
		config.MaxBytes = DefaultMaxBytes
	}
	if config.TTL == 0 {
		config.TTL = DefaultTTL
	}
	if config.MaxBytes < 4<<20 || config.TTL < 0 {
		return nil, fmt.Errorf("open outbox: bound %d bytes, ttl %v: want at least 4 MiB, and no negative time", config.MaxBytes, config.TTL)
	}
	if config.Warn == nil {
		config.Warn = func(error) {}
	}
	clock, err := systemClock()
	if err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	q, err := openQueue(ctx, local, config.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	o := &Outbox{config: config, local: local, hub: hub, clock: clock, queue: q, kick: newKicker()}
	o.state.newest, o.state.settled = q.newest, q.settled
	o.state.epoch = q.epoch
	return o, o.start()
}

func (o *Outbox) start() error {
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	in := &intake{outbox: o, waiting: make(chan *nats.Msg, maxBatch)}
	if err := in.subscribe(ctx); err != nil {
		stop()
		return fmt.Errorf("open outbox: %w", err)
	}
	o.done.Go(func() { in.run(ctx) })
	if o.hub == nil {
		return nil
	}
	f := &forwarder{outbox: o, count: uplinkBatch}
	f.cursor.epoch, f.cursor.settled = o.queue.epoch, o.queue.settled
	o.done.Go(func() { f.run(ctx) })
	if o.config.Twins != nil {
		u := &uplink{outbox: o, twins: o.config.Twins}
		o.done.Go(func() { u.run(ctx) })
	}
	return nil
}

// Close stops. What is on disk stays there for the next Open.
func (o *Outbox) Close() error {
	o.stop()
	o.done.Wait()
	return nil
}

// Kick says that the link to the hub came up: whatever waits for time to pass
// or for an answer over the old link goes on at once.
func (o *Outbox) Kick() { o.kick.all() }

// Stats says how the outbox stands.
func (o *Outbox) Stats(ctx context.Context) (Stats, error) {
	s := o.state.stats()
	info, err := o.queue.stream.Info(ctx)
	if err != nil {
		return s, fmt.Errorf("outbox: %w", err)
	}
	s.Bytes = int64(info.State.Bytes)
	return s, nil
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

// noRoom reports whether JetStream refused for want of room.
func noRoom(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case 10002, 10023, 10028, 10047, 10077: // account, server, memory, storage limit; store failed
		return true
	}
	return false
}
