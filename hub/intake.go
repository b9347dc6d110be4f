package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

const (
	maxGather   = 512     // batches in one commit
	commitBytes = 4 << 20 // bytes in one commit, unless one batch is larger

	// Messages in one commit: to our own server, which we allow it; what a server
	// of somebody else stores as one is twin.MaxItems, if its owner changed nothing.
	// A commit costs some fifteen writes and syncs, however small; one that was cut
	// off by kill -9 is stored at the next start, with a sync for each message.
	maxCommit = 4000
)

// intake takes the messages that devices send, as twin.Batch on up.*.messages:
//
//	take    what comes waits in line, within bounds; beyond them: busy
//	gather  one batch of each device in turn, until it is enough for one commit;
//	        read and check each, and have ready where its lane stands
//	store   what is new of all of them, as one, with one sync of the disk
//	        → the lanes stand there now → answer everybody
//
// It gathers, and sends, while the commit before is on its way to the disk. What it
// knows of lanes may be wrong, because another hub stored, or because the stream is
// not the one that it was: the server then refuses the commit, and each lane is looked
// at and stored by itself.
type intake struct {
	requests *nats.Conn // devices: a connection of its own, so that they do not delay the disk's answers
	stream   *nats.Conn
	own      bool // the server is our own: nobody else stores
	lanes    *lanes
	queue    *backlog
	warn     func(error)
	next     *delivery // gathered, and too much for the commit that it was for
	ends     sync.WaitGroup
	end      context.CancelFunc

	inbox  string         // acknowledgements come below it
	acks   chan *nats.Msg // and here
	number int            // of the newest commit
	newest uint64         // sequence of the stream's newest message, as far as is known; 0 when it is not
}

// newIntake makes one, which takes nothing yet. own says that the server is the hub's
// own.
func newIntake(requests, stream *nats.Conn, own bool, warn func(error)) (*intake, error) {
	i := &intake{requests: requests, stream: stream, own: own, lanes: newLanes(stream), queue: newBacklog(), warn: warn}
	i.inbox, i.acks = stream.NewInbox(), make(chan *nats.Msg, 64)
	if _, err := stream.ChanSubscribe(i.inbox+".*", i.acks); err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	return i, nil
}

// open answers devices until it is closed.
func (i *intake) open() error {
	ctx, end := context.WithCancel(context.Background())
	i.end = end
	if _, err := i.requests.QueueSubscribe("up.*.messages", queueGroup, i.take); err != nil {
		return fmt.Errorf("subscribe to messages: %w", err)
	}
	ready := make(chan []*delivery)
	i.ends.Go(func() { i.gather(ctx, ready) })
	i.ends.Go(func() { i.store(ctx, ready) })
	return nil
}

func (i *intake) close() {
	if i.end != nil {
		i.end()
	}
	i.ends.Wait()
}

// take puts a request in line. Who asks is in the subject, which the server let
// only this device publish to.
func (i *intake) take(m *nats.Msg) {
	d := &delivery{device: strings.Split(m.Subject, ".")[1], reply: m.Reply, raw: m.Data}
	if schema.CheckName(d.device) != nil || !mayAnswer(d.device, d.reply) {
		return
	}
	if !i.queue.push(d) {
		i.answer(d, twin.Standing{Error: &twin.Error{Code: twin.CodeBusy, Message: "too much is waiting to be stored"}})
	}
}

// gather passes on what can be stored as one, and takes more to it for as long as
// the commit before is not through.
func (i *intake) gather(ctx context.Context, ready chan<- []*delivery) {
	defer close(ready)
	var load gathered
	for {
		full := i.fill(ctx, &load)
		some, out := i.queue.some, ready
		if full {
			some = nil
		}
		if len(load.deliveries) == 0 {
			out = nil
		}
		select {
		case <-some:
		case out <- load.deliveries:
			load = gathered{}
		case <-ctx.Done():
			return
		}
	}
}

// gathered is what was gathered for one commit.
type gathered struct {
	deliveries      []*delivery
	messages, bytes int
}

// most is how many messages go into one commit.
func (i *intake) most() int {
	if i.own {
		return maxCommit
	}
	return twin.MaxItems
}

// fill takes what waits; full says that no more goes into the commit.
func (i *intake) fill(ctx context.Context, l *gathered) (full bool) {
	before := len(l.deliveries)
	defer func() { i.lanes.prepare(ctx, l.deliveries[before:]) }()
	for {
		d := i.next
		i.next = nil
		if d == nil {
			if d = i.queue.pop(); d == nil {
				return false
			}
			if refusal := d.unpack(); refusal != nil {
				i.finish(d, twin.Standing{Error: refusal})
				continue
			}
		}
		if len(l.deliveries) > 0 && (len(l.deliveries) == maxGather || l.messages+len(d.messages) > i.most() || l.bytes+len(d.raw) > commitBytes) {
			i.next = d
			return true
		}
		l.deliveries = append(l.deliveries, d)
		l.messages, l.bytes = l.messages+len(d.messages), l.bytes+len(d.raw)
	}
}

// failed answers those whose commit failed.
func (i *intake) failed(deliveries []*delivery, err error) {
	if err == nil {
		return
	}
	e := &twin.Error{Code: failure(err), Message: err.Error()}
	if raced(err) == errRace {
		e = &twin.Error{Code: twin.CodeBusy, Message: "another hub stores messages of this lane"}
	} else {
		i.warn(err)
	}
	for _, d := range deliveries {
		i.finish(d, twin.Standing{Error: e})
	}
}

// finish answers what was in line.
func (i *intake) finish(d *delivery, s twin.Standing) {
	i.answer(d, s)
	i.queue.done(d)
}

func (i *intake) answer(d *delivery, s twin.Standing) {
	data, err := json.Marshal(s)
	if err == nil {
		err = i.requests.Publish(d.reply, data)
	}
	if err != nil {
		i.warn(fmt.Errorf("answer messages of %s: %w", d.device, err))
	}
}

// mayAnswer reports whether an answer to a device may go there: it is published
// with the hub's own permissions, so only where the device may listen.
func mayAnswer(device, reply string) bool {
	return len(reply) <= maxReply && strings.HasPrefix(reply, twin.Inbox(device, "")+".") && !strings.ContainsAny(reply, "*> \t\r\n")
}

// maxReply bounds the subject of an answer, in bytes.
const maxReply = 256

// repeated passes on each complaint once in a while: while a disk is full, every
// commit has the same one.
func repeated(warn func(error)) func(error) {
	var mu sync.Mutex
	said := map[string]time.Time{}
	return func(err error) {
		if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, context.Canceled) {
			return // the hub is closed
		}
		mu.Lock()
		now := time.Now()
		again := now.Sub(said[err.Error()]) < period
		if !again {
			if len(said) > complaints {
				clear(said)
			}
			said[err.Error()] = now
		}
		mu.Unlock()
		if !again {
			warn(err)
		}
	}
}
