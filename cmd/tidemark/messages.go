package main

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf"
	"github.com/tidemark-edge/tidemark/twin/outbox"
)

// messages is the outbox with the connections that it works on.
type messages struct {
	*outbox.Outbox
	local, hub *nats.Conn // hub is nil when the device stands alone
}

// openOutbox starts to take modules' messages in, and to pass them on where
// there is a hub.
func openOutbox(ctx context.Context, l *leaf.Leaf, config schema.AgentConfig, warn func(error)) (*messages, error) {
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
	}
	m.Outbox, err = outbox.Open(ctx, m.local, m.hub, outbox.Config{
		Device: config.Device, MaxBytes: int64(config.Outbox.MaxBytes), TTL: time.Duration(config.Outbox.TTL), Twins: l, Warn: warn,
	})
	if err != nil {
		m.hangUp()
		return nil, err
	}
	return m, nil
}

// onFleetMoved calls f when the hub says that the repository has a new commit.
func (m *messages) onFleetMoved(f func()) error {
	_, err := m.hub.Subscribe(twin.FleetMoved, func(*nats.Msg) { f() })
	return err
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
