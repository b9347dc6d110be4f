package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf"
	"github.com/tidemark-edge/tidemark/twin/outbox"
)

// post is the outbox, once it is open. It cannot be opened on a full disk, and a
// device that boots with one still has to run its modules.
type post struct {
	open  func(context.Context) (*messages, error)
	again time.Duration // the wait after it could not be opened
	warn  func(error)

	mu     sync.Mutex
	inside *messages // nil until it is open
	closed bool
}

// try opens it.
func (p *post) try(ctx context.Context) error {
	m, err := p.open(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return m.close()
	}
	p.inside = m
	return nil
}

// run opens it where the first try did not, however often that takes.
func (p *post) run(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	p.warn(fmt.Errorf("%w; modules run, and what they send is not taken until there is an outbox", err))
	tick := time.NewTicker(p.again)
	defer tick.Stop()
	for err != nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err = p.try(ctx)
	}
}

// kick says that the link to the hub came up.
func (p *post) kick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inside != nil {
		p.inside.Kick()
	}
}

// stats says how the outbox stands; nil when it is not open, or cannot say.
func (p *post) stats(ctx context.Context) *outbox.Stats {
	p.mu.Lock()
	inside := p.inside
	p.mu.Unlock()
	if inside == nil {
		return nil
	}
	stats, err := inside.Stats(ctx)
	if err != nil {
		return nil
	}
	return &stats
}

func (p *post) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.inside == nil {
		return nil
	}
	return p.inside.close()
}

// messages is the outbox with the connections that it works on.
type messages struct {
	*outbox.Outbox
	local, hub *nats.Conn // hub is nil when the device stands alone
}

// openOutbox starts to take modules' messages in, and to pass them on where
// there is a hub. It calls moved when the hub says that the fleet repository has
// a new commit.
func openOutbox(ctx context.Context, l *leaf.Leaf, config schema.AgentConfig, moved func(), warn func(error)) (*messages, error) {
	m := &messages{}
	var err error
	if m.local, err = l.Connect("outbox"); err != nil {
		return nil, err
	}
	if config.Hub != nil {
		if m.hub, err = l.ConnectHub("outbox"); err != nil {
			m.local.Close()
			return nil, err
		}
		if _, err = m.hub.Subscribe(twin.FleetMoved, func(*nats.Msg) { moved() }); err != nil {
			m.hangUp()
			return nil, err
		}
	}
	m.Outbox, err = outbox.Open(ctx, m.local, m.hub, outbox.Config{
		Device: config.Device, StateDir: config.StateDir, MaxBytes: int64(config.Outbox.MaxBytes), TTL: time.Duration(config.Outbox.TTL), Twins: l, Warn: warn,
	})
	if err != nil {
		m.hangUp()
		return nil, err
	}
	return m, nil
}

func (m *messages) close() error {
	defer m.hangUp()
	return m.Outbox.Close()
}

func (m *messages) hangUp() {
	m.local.Close()
	if m.hub != nil {
		m.hub.Close()
	}
}
