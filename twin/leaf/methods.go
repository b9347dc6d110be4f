package leaf

import (
	"context"
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
	link   *link
	known  func(module string) bool // whether it is declared
	slots  chan struct{}
	ctx    context.Context // ends with the leaf
	end    context.CancelFunc

	mu      sync.Mutex
	closed  bool
	bridged map[string]int // calls from the hub that run, by module
	calls   sync.WaitGroup
}

func (l *Leaf) newMethods() (*methods, error) {
	m := &methods{device: l.config.Device, link: l.link, known: l.ledger.Declares, slots: make(chan struct{}, maxCalls), bridged: map[string]int{}}
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
		if err := m.bridge(); err != nil {
			m.close()
			return nil, err
		}
	}
	return m, nil
}

// Handle answers devices.<device>.rpc.<name>, from people on the device and from
// the hub, which has to name a reply subject below up.<device>.answer. Calls may
// run at the same time; their context ends with the leaf and with the time that
// the caller waits (twin.HeaderTimeout), after which it is answered
// twin.CodeTimeout, and it says FromHub. An error is answered as twin.Refusal.
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
			if conn == m.hub && !m.hubWaits(msg) {
				return
			}
			limit, err := twin.CallTime(msg.Header)
			if err != nil {
				respond(msg, nil, err)
				return
			}
			select {
			case m.slots <- struct{}{}:
			default:
				respond(msg, nil, errBusy)
				return
			}
			started := m.start(func() {
				defer func() { <-m.slots }()
				m.call(ctx, msg, limit, f)
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

// errBusy refuses what is too much at a time.
var errBusy = &twin.Error{Code: twin.CodeBusy, Message: "too many calls at a time; try again"}

// call answers one call, at the latest when its caller waits no longer, and
// returns when f has.
func (m *methods) call(ctx context.Context, msg *nats.Msg, limit time.Duration, f func(context.Context, []byte) ([]byte, error)) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	late := &twin.Error{Code: twin.CodeTimeout, Message: fmt.Sprintf("not done within %s: it may still be", limit)}
	var once sync.Once // whoever is first
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			once.Do(func() { respond(msg, nil, late) })
		}
	})
	defer stop()
	data, err := f(ctx, msg.Data)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = late
	}
	once.Do(func() { respond(msg, data, err) })
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
	if err == nil && len(answer) > twin.MaxBody {
		err = &twin.Error{Code: twin.CodeTooLarge, Message: fmt.Sprintf("answer has %d bytes, and may have %d", len(answer), twin.MaxBody)}
	}
	if err != nil {
		answer = twin.Refusal(err)
	}
	if msg.Reply != "" {
		_ = msg.Respond(answer)
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
