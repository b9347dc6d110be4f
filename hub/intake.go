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
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

const (
	maxGather   = 512     // batches in one commit
	commitBytes = 8 << 20 // bytes in one commit, unless one batch is larger
)

// intake takes the messages that devices send, as twin.Batch on up.*.messages:
//
//	take    what comes waits in line, within bounds; beyond them: busy
//	gather  one batch of each device in turn, until it is enough for one commit;
//	        read and check each, and have ready where its lane stands
//	store   what is new of all of them, as one, with one sync of the disk
//	        → the lanes stand there now → answer everybody
//
// It gathers while the commit before is on its way to the disk. What it knows of
// lanes may be wrong, because another hub stored, or because the stream is not the
// one that it was: the server then refuses the commit, and each lane is looked at
// and stored by itself.
type intake struct {
	requests *nats.Conn // devices: a connection of its own, so that they do not delay the disk's answers
	stream   *nats.Conn
	lanes    *lanes
	queue    *backlog
	warn     func(error)
	next     *delivery // gathered, and too much for the commit that it was for
	ends     sync.WaitGroup
	end      context.CancelFunc
}

// openIntake answers devices until it is closed.
func openIntake(requests, stream *nats.Conn, warn func(error)) (*intake, error) {
	i := &intake{requests: requests, stream: stream, lanes: newLanes(stream), queue: newBacklog(), warn: warn}
	ctx, end := context.WithCancel(context.Background())
	i.end = end
	if _, err := requests.QueueSubscribe("up.*.messages", queueGroup, i.take); err != nil {
		end()
		return nil, fmt.Errorf("subscribe to messages: %w", err)
	}
	ready := make(chan []*delivery)
	i.ends.Go(func() { i.gather(ctx, ready) })
	i.ends.Go(func() {
		for deliveries := range ready {
			i.store(ctx, deliveries)
		}
	})
	return i, nil
}

func (i *intake) close() {
	i.end()
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
		if len(l.deliveries) > 0 && (len(l.deliveries) == maxGather || l.messages+len(d.messages) > twin.MaxItems || l.bytes+len(d.raw) > commitBytes) {
			i.next = d
			return true
		}
		l.deliveries = append(l.deliveries, d)
		l.messages, l.bytes = l.messages+len(d.messages), l.bytes+len(d.raw)
	}
}

// store stores what is new of the deliveries, and answers them.
func (i *intake) store(ctx context.Context, deliveries []*delivery) {
	err := i.commit(ctx, deliveries)
	var refused *jetstream.APIError
	if !errors.As(err, &refused) {
		i.failed(deliveries, err)
		return
	}
	// Nothing is stored, and for whose sake is not known: no device's messages
	// fail for another's.
	for _, one := range byLane(deliveries) {
		for range maxRaces {
			for _, d := range one {
				d.again()
			}
			if err = i.commit(ctx, one); raced(err) != errRace {
				break
			}
		}
		i.failed(one, err)
	}
}

// byLane parts deliveries, in order.
func byLane(deliveries []*delivery) [][]*delivery {
	var out [][]*delivery
	at := map[string]int{}
	for _, d := range deliveries {
		n, known := at[d.lane]
		if !known {
			n = len(out)
			at[d.lane], out = n, append(out, nil)
		}
		out[n] = append(out[n], d)
	}
	return out
}

// commit stores what is new of the deliveries as one. When it fails, nobody is
// answered, and where the lanes stand is looked up again.
func (i *intake) commit(ctx context.Context, deliveries []*delivery) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var c commit
	for _, d := range deliveries {
		p, err := i.lanes.of(ctx, d.lane)
		if err != nil {
			return err
		}
		c.add(d, p)
	}
	if n := uint64(len(c.messages)); n > 0 {
		last, err := c.publish(ctx, i.stream)
		if err != nil {
			for lane := range c.parts {
				i.lanes.forget(lane)
			}
			return fmt.Errorf("store messages: %w", err)
		}
		for lane, p := range c.parts {
			if p.newest >= 0 {
				i.lanes.moved(lane, place{at: p.at, last: last - (n - 1) + uint64(p.newest)})
			}
		}
	}
	for _, d := range deliveries {
		i.finish(d, twin.Standing{Position: c.parts[d.lane].at})
	}
	return nil
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
