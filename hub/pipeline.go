package hub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/twin"
)

// store stores what is ready, one commit after the other, until there is no more.
// While one is on its way to the disk, the next is sent but for its last message,
// without which the server stores nothing of it: that one follows once the commit
// before is known to have come where it was thought to come.
func (i *intake) store(ctx context.Context, ready <-chan []*delivery) {
	var flying, staged *commit
	for ready != nil || flying != nil || staged != nil {
		if flying == nil && staged != nil {
			flying, staged = i.fly(ctx, staged), nil
			continue
		}
		in := ready
		if staged != nil || flying != nil && flying.base == 0 {
			in = nil // there is one already, or nobody knows where it would have to follow
		}
		var acks <-chan *nats.Msg
		var late <-chan time.Time
		if flying != nil {
			acks, late = i.acks, flying.late
		}
		select {
		case deliveries, more := <-in:
			if !more {
				ready = nil
				continue
			}
			var err error
			if staged, err = i.stage(ctx, deliveries, flying); err != nil {
				staged = nil
				i.failed(deliveries, err)
			}
		case m := <-acks:
			if m.Subject == flying.last().Reply {
				i.landed(ctx, flying, i.acknowledged(flying, m))
				flying = nil
			}
		case <-late:
			i.landed(ctx, flying, i.acknowledged(flying, nil))
			flying = nil
		case <-ctx.Done():
			return
		}
	}
}

// stage sends what is new of the deliveries, but for the last message of it, as it
// follows what is stored, and what flies.
func (i *intake) stage(ctx context.Context, deliveries []*delivery, flying *commit) (*commit, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	c := &commit{deliveries: deliveries, parts: map[string]*part{}, base: i.newest}
	if flying != nil {
		c.base = flying.base + uint64(len(flying.messages))
	}
	for _, d := range deliveries {
		p, flies := flying.place(d.lane)
		if !flies {
			var err error
			if p, err = i.lanes.of(ctx, d.lane); err != nil {
				return nil, err
			}
		}
		c.add(d, p)
	}
	c.condition(i.own && c.base > 0)
	if err := c.stage(i.stream); err != nil {
		return nil, fmt.Errorf("store messages: %w", err)
	}
	return c, nil
}

// fly has the server store a commit, and returns it; nil when it is through already.
// What was staged on a belief that is wrong is staged anew.
func (i *intake) fly(ctx context.Context, c *commit) *commit {
	if !i.holds(c) {
		c.abandon(i.stream)
		deliveries := c.deliveries
		var err error
		if c, err = i.stage(ctx, deliveries, nil); err != nil {
			i.failed(deliveries, err)
			return nil
		}
	}
	if len(c.messages) == 0 {
		i.stored(c, 0)
		return nil
	}
	if err := i.send(c); err != nil {
		i.landed(ctx, c, err)
		return nil
	}
	return c
}

// holds says whether the lanes of a staged commit stand where it was thought.
func (i *intake) holds(c *commit) bool {
	if i.own && c.base != i.newest {
		return false
	}
	for lane, p := range c.parts {
		if now, known := i.lanes.known(lane); !known || now != p.before {
			return false
		}
	}
	return true
}

// send sends the last message of a commit.
func (i *intake) send(c *commit) error {
	i.number++
	c.base, c.late = i.newest, time.After(answerTimeout)
	c.last().Reply = fmt.Sprintf("%s.%d", i.inbox, i.number)
	failpoint.Reach("hub.storing")
	return i.stream.PublishMsg(c.last())
}

// acknowledged takes the acknowledgement of what flew, nil when none came, and
// answers devices where it is one.
func (i *intake) acknowledged(c *commit, m *nats.Msg) error {
	if m == nil {
		return context.DeadlineExceeded
	}
	failpoint.Reach("hub.stored")
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return nats.ErrNoResponders
	}
	last, err := readAck(m.Data, len(c.messages))
	if err == nil {
		i.stored(c, last)
	}
	return err
}

// stored says where the lanes of a commit stand, whose last message has the sequence
// last, and answers the devices.
func (i *intake) stored(c *commit, last uint64) {
	if n := uint64(len(c.messages)); n > 0 {
		if i.own && (i.newest == 0 || last-n != i.newest) {
			i.lanes.forgetAll() // somebody else may have stored: what is known of other lanes is not of this moment
		}
		i.newest = last
		for lane, p := range c.parts {
			if p.newest >= 0 {
				i.lanes.moved(lane, place{at: p.at, last: last - (n - 1) + uint64(p.newest)})
			}
		}
	}
	for _, d := range c.deliveries {
		i.finish(d, twin.Standing{Position: c.parts[d.lane].at})
	}
}

// landed does what an error of a commit asks for. Nobody knows where its lanes stand
// then. When the server refused it, nothing is stored, and for whose sake is not
// known: no device's messages fail for another's.
func (i *intake) landed(ctx context.Context, c *commit, err error) {
	if err == nil {
		return
	}
	i.newest = 0
	for lane := range c.parts {
		i.lanes.forget(lane)
	}
	err = fmt.Errorf("store messages: %w", err)
	var refused *jetstream.APIError
	if !errors.As(err, &refused) {
		i.failed(c.deliveries, err)
		return
	}
	for _, one := range byLane(c.deliveries) {
		for range maxRaces {
			if err = i.alone(ctx, one); raced(err) != errRace {
				break
			}
		}
		i.failed(one, err)
	}
}

// alone stores what is new of deliveries of one lane, and answers them unless it
// fails.
func (i *intake) alone(ctx context.Context, deliveries []*delivery) error {
	c, err := i.stage(ctx, deliveries, nil)
	if err != nil {
		return err
	}
	if len(c.messages) == 0 {
		i.stored(c, 0)
		return nil
	}
	if err = i.send(c); err == nil {
		err = i.acknowledged(c, i.await(ctx, c))
	}
	if err != nil {
		i.newest = 0
		i.lanes.forget(deliveries[0].lane)
		return fmt.Errorf("store messages: %w", err)
	}
	return nil
}

// await waits for the acknowledgement of a commit; nil when there is none.
func (i *intake) await(ctx context.Context, c *commit) *nats.Msg {
	for {
		select {
		case m := <-i.acks:
			if m.Subject == c.last().Reply {
				return m
			}
		case <-c.late:
			return nil
		case <-ctx.Done():
			return nil
		}
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
