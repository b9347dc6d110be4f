package leaf

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

// What crosses the link of methods, each way by the agent: nothing that a module
// says reaches the hub by itself, nor the other way round. Who called whom, with
// what and with which answer, is written nowhere.
const (
	maxModuleCalls = 16  // of one module at a time: to it from the hub, and by it
	maxBridged     = 128 // from the hub to all modules at a time
)

// bridge passes the hub's calls of modules' methods on.
func (m *methods) bridge() error {
	if _, err := m.hub.Subscribe(twin.Prefix(m.device, "*")+".rpc.*", m.toModule); err != nil {
		return fmt.Errorf("answer for modules' methods: %w", err)
	}
	return m.hub.Flush()
}

// hubWaits reports whether a call over the link names where its answer may go.
// Anywhere else it would be published with the agent's rights.
func (m *methods) hubWaits(msg *nats.Msg) bool {
	return strings.HasPrefix(msg.Reply, twin.Up(m.device)+".answer.") && !strings.ContainsAny(msg.Reply, "*> \t\r\n")
}

// toModule passes one call on.
func (m *methods) toModule(msg *nats.Msg) {
	if !m.hubWaits(msg) {
		return
	}
	module := strings.Split(msg.Subject, ".")[3]
	limit, err := twin.CallTime(msg.Header)
	switch {
	case err != nil:
	case !m.known(module):
		err = &twin.Error{Code: twin.CodeNotFound, Message: "no such module is declared"}
	case len(msg.Data) > twin.MaxBody:
		err = &twin.Error{Code: twin.CodeTooLarge, Message: fmt.Sprintf("body has %d bytes, and may have %d", len(msg.Data), twin.MaxBody)}
	case !m.take(module):
		err = errBusy
	}
	if err != nil {
		respond(msg, nil, err)
		return
	}
	started := m.start(func() {
		defer m.give(module)
		answer, err := m.askModule(passed(msg, msg.Subject, limit), limit)
		respond(msg, answer, err)
	})
	if !started {
		m.give(module)
	}
}

// passed is a call as it is passed on: of its headers, only its time.
func passed(msg *nats.Msg, subject string, limit time.Duration) *nats.Msg {
	return &nats.Msg{Subject: subject, Header: nats.Header{twin.HeaderTimeout: {limit.String()}}, Data: msg.Data}
}

// unanswered is how a call is refused that was passed on.
func unanswered(err error, limit time.Duration) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &twin.Error{Code: twin.CodeTimeout, Message: fmt.Sprintf("no answer within %s: it may have run", limit)}
	case errors.Is(err, context.Canceled), errors.Is(err, nats.ErrConnectionClosed):
		return &twin.Error{Code: twin.CodeTimeout, Message: "the agent ended before the answer came: it may have run"}
	}
	return err
}

// take counts a call of a module, unless there are too many.
func (m *methods) take(module string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := 0
	for _, n := range m.bridged {
		all += n
	}
	if all >= maxBridged || m.bridged[module] >= maxModuleCalls {
		return false
	}
	m.bridged[module]++
	return true
}

func (m *methods) give(module string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bridged[module]--; m.bridged[module] == 0 {
		delete(m.bridged, module)
	}
}

// errLinkLost says that the answer can no longer come.
var errLinkLost = errors.New("the link to the hub was lost")

// askHub asks a service at the hub, for as long as the link holds.
func (m *methods) askHub(msg *nats.Msg, limit time.Duration) ([]byte, error) {
	up, _, changed := m.link.state()
	if m.hub == nil {
		return nil, &twin.Error{Code: twin.CodeOffline, Message: "this device has no hub"}
	}
	if !up {
		return nil, &twin.Error{Code: twin.CodeOffline, Message: "there is no link to the hub"}
	}
	ctx, lose := context.WithCancelCause(m.ctx)
	defer lose(nil)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	go func() {
		select {
		case <-changed:
			lose(errLinkLost)
		case <-ctx.Done():
		}
	}()
	answer, err := m.hub.RequestMsgWithContext(ctx, msg)
	switch {
	case err == nil:
		return answer.Data, nil
	case errors.Is(err, nats.ErrNoResponders):
		return nil, &twin.Error{Code: twin.CodeOffline, Message: "nobody at the hub answers it"}
	case errors.Is(context.Cause(ctx), errLinkLost):
		return nil, &twin.Error{Code: twin.CodeTimeout, Message: "the link to the hub was lost before the answer came: it may have run"}
	}
	return nil, unanswered(err, limit)
}
