package leaf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// maxCalls is how many calls of methods run at a time; more are refused.
const maxCalls = 16

// flushBefore is how long the last answers may take to be sent before closing.
const flushBefore = time.Second

// methods are the device's own direct methods, which people on the device and
// the hub may call.
type methods struct {
	device string
	local  *nats.Conn
	hub    *nats.Conn // nil when there is none
	slots  chan struct{}
	ctx    context.Context // ends with the leaf
	end    context.CancelFunc

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup
}

func (l *Leaf) newMethods() (*methods, error) {
	m := &methods{device: l.config.Device, slots: make(chan struct{}, maxCalls)}
	m.ctx, m.end = context.WithCancel(context.Background())
	var err error
	if m.local, err = l.Connect("methods"); err != nil {
		return nil, err
	}
	if l.config.Hub != nil {
		if m.hub, err = l.ConnectHub("methods"); err != nil {
			m.close()
			return nil, err
		}
	}
	return m, nil
}

// Handle answers devices.<device>.rpc.<name>, from people on the device and from
// the hub, which has to name a reply subject below up.<device>.answer. Calls may
// run at the same time; their context ends with the leaf, and says FromHub. An
// error is answered as twin.Answer: an *twin.Error as it is, any other with
// twin.CodeFailed.
func (l *Leaf) Handle(name string, f func(ctx context.Context, body []byte) ([]byte, error)) error {
	if err := schema.CheckName(name); err != nil {
		return fmt.Errorf("handle: %w", err)
	}
	return l.methods.handle(name, f)
}

// fromHub is the key of what FromHub says.
type fromHub struct{}

// FromHub reports whether the call of a method with this context came over the
// link, rather than from this device.
func FromHub(ctx context.Context) bool { is, _ := ctx.Value(fromHub{}).(bool); return is }

func (m *methods) handle(name string, f func(context.Context, []byte) ([]byte, error)) error {
	subject := twin.Prefix(m.device, "") + ".rpc." + name
	for _, conn := range []*nats.Conn{m.local, m.hub} {
		if conn == nil {
			continue
		}
		ctx := context.WithValue(m.ctx, fromHub{}, conn == m.hub)
		_, err := conn.Subscribe(subject, func(msg *nats.Msg) {
			select {
			case m.slots <- struct{}{}:
			default:
				respond(msg, nil, &twin.Error{Code: twin.CodeBusy, Message: "too many calls at a time; try again"})
				return
			}
			started := m.start(func() {
				defer func() { <-m.slots }()
				answer, err := f(ctx, msg.Data)
				respond(msg, answer, err)
			})
			if !started {
				<-m.slots
			}
		})
		if err != nil {
			return fmt.Errorf("handle %s: %w", name, err)
		}
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("handle %s: %w", name, err)
		}
	}
	return nil
}

// start runs a call unless the leaf is closing.
func (m *methods) start(call func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.calls.Go(call)
	return true
}

// respond answers a call. An answer that cannot be sent has nobody to tell.
func respond(msg *nats.Msg, answer []byte, err error) {
	if err != nil {
		var e *twin.Error
		if !errors.As(err, &e) {
			e = &twin.Error{Code: twin.CodeFailed, Message: err.Error()}
		}
		answer, _ = json.Marshal(twin.Answer{Error: e}) // an int and two strings
	}
	if msg.Reply == "" {
		return
	}
	if err := msg.Respond(answer); errors.Is(err, nats.ErrMaxPayload) {
		respond(msg, nil, &twin.Error{Code: twin.CodeTooLarge, Message: fmt.Sprintf("answer has %d bytes, more than a message may", len(answer))})
	}
}

// close waits for the calls that run, so that their answers are still sent.
func (m *methods) close() {
	m.end()
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.calls.Wait()
	for _, conn := range []*nats.Conn{m.local, m.hub} {
		if conn != nil {
			_ = conn.FlushTimeout(flushBefore)
			conn.Close()
		}
	}
}
