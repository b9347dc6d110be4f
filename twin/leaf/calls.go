package leaf

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// serveCalls passes a module's calls on, of services at the hub and of methods of
// other modules. They come by the connection of the module's own twin, so that
// one who floods it harms itself.
func (s *service) serveCalls() error {
	if s.module == "" {
		return nil
	}
	p := twin.Prefix(s.twins.device, s.module)
	for subject, f := range map[string]nats.MsgHandler{p + ".hub.*": s.toHub, p + ".call.*.*": s.toSibling} {
		sub, err := s.conn.Subscribe(subject, f)
		if err != nil {
			return err
		}
		if err := sub.SetPendingLimits(maxQueued, maxQueuedBytes); err != nil {
			return err
		}
	}
	return nil
}

// toHub passes a call of P.hub.<name> on.
func (s *service) toHub(msg *nats.Msg) {
	name := msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:]
	m := s.twins.methods
	s.pass(msg, name, func(limit time.Duration) ([]byte, error) {
		return m.askHub(passed(msg, twin.UpCall(m.device, s.module, name), limit), limit)
	})
}

// toSibling passes a call of P.call.<module>.<method> on, which the server has
// let through because the definition allows it. The other module learns who
// calls, and answers to the agent: see modulePermissions.
func (s *service) toSibling(msg *nats.Msg) {
	tokens := strings.Split(msg.Subject, ".")
	callee, method := tokens[len(tokens)-2], tokens[len(tokens)-1]
	m := s.twins.methods
	s.pass(msg, method, func(limit time.Duration) ([]byte, error) {
		if !m.known(callee) {
			return nil, &twin.Error{Code: twin.CodeNotFound, Message: "no such module is declared"}
		}
		call := passed(msg, twin.Prefix(m.device, callee)+".rpc."+method, limit)
		call.Header.Set(twin.HeaderFrom, s.module)
		return m.askModule(call, limit)
	})
}

// pass checks a call, and answers it with what ask says.
func (s *service) pass(msg *nats.Msg, name string, ask func(limit time.Duration) ([]byte, error)) {
	if !s.mayReply(msg) {
		return
	}
	limit, err := twin.CallTime(msg.Header)
	if err == nil && schema.CheckName(name) != nil {
		err = &twin.Error{Code: twin.CodeNotFound, Message: "nothing has such a name"}
	}
	if err == nil && len(msg.Data) > twin.MaxBody {
		err = &twin.Error{Code: twin.CodeTooLarge, Message: fmt.Sprintf("body has %d bytes, and may have %d", len(msg.Data), twin.MaxBody)}
	}
	if err == nil {
		select {
		case s.calls <- struct{}{}:
		default:
			err = errBusy
		}
	}
	if err != nil {
		respond(msg, nil, err)
		return
	}
	started := s.twins.methods.start(func() {
		defer func() { <-s.calls }()
		answer, err := ask(limit)
		respond(msg, answer, err)
	})
	if !started {
		<-s.calls
	}
}

// askModule asks a module's method.
func (m *methods) askModule(call *nats.Msg, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(m.ctx, limit)
	defer cancel()
	answer, err := twin.RequestMsg(ctx, m.local, call)
	switch {
	case err == nil:
		return answer.Data, nil
	case errors.Is(err, nats.ErrNoResponders):
		return nil, &twin.Error{Code: twin.CodeOffline, Message: "the module is not connected, or has no such method"}
	}
	return nil, unanswered(err, limit)
}
