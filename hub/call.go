package hub

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// Method names a direct method of a device, or of one of its modules.
type Method struct {
	Device string
	Module string // empty: the device's own
	Name   string
}

// Call calls a direct method, over a connection with the rights of an operator.
// The device is told how long ctx has, or twin.DefaultCallTime where it has no
// end, and at most twin.MaxCallTime. An *twin.Error is the method's own, or says
// twin.CodeOffline, at once, when the device is not linked or the module not
// connected, and twin.CodeTimeout when nothing came in time.
//
// A device may publish only below up.<device>., so the answer comes there.
func Call(ctx context.Context, nc *nats.Conn, m Method, body []byte) ([]byte, error) {
	err := errors.Join(schema.CheckName(m.Device), schema.CheckName(m.Name))
	if m.Module != "" {
		err = errors.Join(err, schema.CheckName(m.Module))
	}
	if err != nil {
		return nil, fmt.Errorf("call: %w", err)
	}
	answer, err := call(ctx, nc, m, body)
	if err != nil {
		return nil, fmt.Errorf("call %s of %s: %w", m.Name, schema.Address(m.Device, m.Module), err)
	}
	return answer, nil
}

func call(ctx context.Context, nc *nats.Conn, m Method, body []byte) ([]byte, error) {
	most := twin.MaxCallTime
	if _, ends := ctx.Deadline(); !ends {
		most = twin.DefaultCallTime
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	end, _ := ctx.Deadline()
	left := time.Until(end)
	left -= min(left/10, time.Second) // the device's own answer that it took too long has to get here

	answers, err := nc.SubscribeSync(twin.Up(m.Device) + ".answer." + rand.Text())
	if err != nil {
		return nil, err
	}
	defer func() { _ = answers.Unsubscribe() }()
	request := &nats.Msg{Subject: twin.Prefix(m.Device, m.Module) + ".rpc." + m.Name, Reply: answers.Subject, Data: body,
		Header: nats.Header{twin.HeaderTimeout: {max(left, time.Millisecond).Round(time.Millisecond).String()}}}
	if err := nc.PublishMsg(request); err != nil {
		return nil, err
	}
	answer, err := answers.NextMsgWithContext(ctx)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, &twin.Error{Code: twin.CodeOffline, Message: "nobody there answers: is the device linked, and does it have the method?"}
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &twin.Error{Code: twin.CodeTimeout, Message: "no answer came in time: it may have been done all the same"}
	case err != nil:
		return nil, err
	}
	return twin.ReadReply(answer.Data)
}

// Caller is the module that calls a service at the hub.
type Caller struct{ Device, Module string }

// maxServed is how many calls of one service are answered at a time.
const maxServed = 64

// Serve answers calls of modules to a service, P.hub.<name> on the device, over a
// connection with the rights of an operator, until the subscription ends. Several
// that serve a name share the calls. Who calls is certain: the server lets no
// device speak for another, and the device no module.
//
// An error is answered as twin.Refusal. The calls' contexts end when the caller
// waits no more. Any NATS client can do the same: it answers requests on
// up.*.call.*.<name>, only to replies below _INBOX.<device>., where <device> is
// the second part of the subject.
func Serve(nc *nats.Conn, name string, f func(ctx context.Context, from Caller, body []byte) ([]byte, error)) (*nats.Subscription, error) {
	if err := schema.CheckName(name); err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	slots := make(chan struct{}, maxServed)
	s, err := nc.QueueSubscribe(twin.UpCall("*", "*", name), "tidemark-services", func(m *nats.Msg) {
		parts := strings.Split(m.Subject, ".")
		from := Caller{Device: parts[1], Module: parts[3]}
		if errors.Join(schema.CheckName(from.Device), schema.CheckName(from.Module)) != nil || !mayAnswer(from.Device, m.Reply) {
			return
		}
		limit, err := twin.CallTime(m.Header)
		if err != nil {
			_ = m.Respond(twin.Refusal(err))
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = m.Respond(twin.Refusal(&twin.Error{Code: twin.CodeBusy, Message: "too many calls at a time; try again"}))
			return
		}
		go func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			answer, err := f(ctx, from, m.Data)
			if err != nil {
				answer = twin.Refusal(err)
			}
			if err := m.Respond(answer); errors.Is(err, nats.ErrMaxPayload) {
				_ = m.Respond(twin.Refusal(&twin.Error{Code: twin.CodeTooLarge, Message: fmt.Sprintf("answer has %d bytes, more than a message may", len(answer))}))
			}
		}()
	})
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", name, err)
	}
	return s, nc.Flush()
}
