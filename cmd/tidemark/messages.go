package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
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

	routing sync.Mutex // held while routes are handed to it; before mu

	mu      sync.Mutex
	inside  *messages      // nil until it is open
	routes  []schema.Route // of the definition
	pending bool           // it does not go by them yet
	problem string         // why; empty when nothing went wrong
	closed  bool
}

// try opens it.
func (p *post) try(ctx context.Context) error {
	m, err := p.open(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return m.close()
	}
	p.inside = m
	p.mu.Unlock()
	p.arrange(ctx)
	return nil
}

// route has messages go by these routes. Where that fails, as on a full disk, they
// go as before until it does not: run tries again. No module waits for it.
func (p *post) route(ctx context.Context, routes []schema.Route) {
	p.mu.Lock()
	p.routes, p.pending = slices.Clone(routes), true
	p.mu.Unlock()
	p.arrange(ctx)
}

// arrange hands the routes over that are still to be.
func (p *post) arrange(ctx context.Context) {
	p.routing.Lock()
	defer p.routing.Unlock()
	p.mu.Lock()
	inside, routes, pending := p.inside, p.routes, p.pending
	p.mu.Unlock()
	if inside == nil || !pending {
		return
	}
	err := inside.Route(ctx, routes)
	if ctx.Err() != nil {
		return
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	p.mu.Lock()
	said := p.problem == text
	p.pending, p.problem = err != nil, text
	p.mu.Unlock()
	if !said && err != nil {
		p.warn(fmt.Errorf("%w; messages go on as before where they can", err))
	}
}

// run opens it where the first try did not, and has it go by the routes where it
// does not yet, however often that takes, until ctx ends.
func (p *post) run(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		p.warn(fmt.Errorf("%w; modules run, and what they send is not taken until there is an outbox", err))
	}
	tick := time.NewTicker(p.again)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err != nil {
			err = p.try(ctx)
		} else {
			p.arrange(ctx)
		}
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

// stats says how the outbox stands, and why not all of it does as it should.
func (p *post) stats(ctx context.Context) (stats outbox.Stats, problem string) {
	p.mu.Lock()
	inside, problem := p.inside, p.problem
	p.mu.Unlock()
	if inside == nil {
		return outbox.Stats{}, "it cannot be opened: messages of modules are not taken"
	}
	stats, err := inside.Stats(ctx)
	if err != nil {
		return outbox.Stats{}, err.Error()
	}
	return stats, cmp.Or(problem, stats.LastError)
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
// there is a hub. It calls heard with what the hub says of new commits of the fleet
// repository.
func openOutbox(ctx context.Context, l *leaf.Leaf, config schema.AgentConfig, heard func([]byte), warn func(error)) (*messages, error) {
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
		if _, err = m.hub.Subscribe(twin.FleetMoved, func(m *nats.Msg) { heard(m.Data) }); err != nil {
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
