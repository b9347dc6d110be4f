package twin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// maxCalls is how many calls of a method run at a time; more are refused with
// CodeBusy.
const maxCalls = 16

// OnMethod calls f with the body of each call of the module's direct method of
// this name, from the cloud or from a module that may, and answers what f
// returns: at most MaxBody bytes, or an error, which the caller gets as *Error,
// with CodeFailed where it is none. Calls run at the same time; their context
// ends when the caller waits no longer, and with Close. There is one f to a name.
func (c *Client) OnMethod(name string, f func(ctx context.Context, body []byte) ([]byte, error)) error {
	slots := make(chan struct{}, maxCalls)
	err := c.serve("rpc", name, func(m *nats.Msg) {
		limit, err := CallTime(m.Header)
		if err != nil {
			reply(m, nil, err)
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			reply(m, nil, &Error{Code: CodeBusy, Message: "too many calls at a time; try again"})
			return
		}
		// Close waits for the loop that this is called from, so this one may start.
		c.running.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(c.closing, limit)
			defer cancel()
			answer, err := f(ctx, m.Data)
			reply(m, answer, err)
		})
	})
	if err != nil {
		return fmt.Errorf("answer method %s: %w", clip(name), err)
	}
	return nil
}

// reply answers a call. One that cannot be sent has nobody to tell.
func reply(m *nats.Msg, answer []byte, err error) {
	if err == nil && len(answer) > MaxBody {
		err = &Error{Code: CodeTooLarge, Message: fmt.Sprintf("answer has %d bytes, and may have %d", len(answer), MaxBody)}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = &Error{Code: CodeTimeout, Message: err.Error()}
	}
	if err != nil {
		answer = Refusal(err)
	}
	_ = m.Respond(answer)
}

// hub is what a target of Call names the hub by.
const hub = "hub"

// Call calls a direct method and returns its answer. The target is
//
//	<module>/<method>  of another module of the device, where the definition allows it
//	hub/<name>         a service at the hub
//	<method>           of the device itself, by a person on it
//
// It is asked once, and waits until ctx ends, DefaultCallTime where that has no
// deadline, and never longer than MaxCallTime. Every refusal is an *Error:
// CodeOffline at once where the agent, the link to the hub or who should answer
// is not connected; CodeTimeout when no answer came, so that the method may have
// run or not; CodeRefused where the definition does not allow it; and what the
// method itself answers.
func (c *Client) Call(ctx context.Context, target string, body []byte) ([]byte, error) {
	answer, err := c.call(ctx, target, body)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", clip(target), err)
	}
	return answer, nil
}

func (c *Client) call(ctx context.Context, target string, body []byte) ([]byte, error) {
	subject, err := c.callee(target)
	if err != nil {
		return nil, err
	}
	if len(body) > MaxBody {
		return nil, &Error{Code: CodeTooLarge, Message: fmt.Sprintf("body has %d bytes, and may have %d", len(body), MaxBody)}
	}
	limit := DefaultCallTime
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(time.Until(deadline), MaxCallTime)
	}
	limit = max(limit.Round(time.Millisecond), time.Millisecond)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if !c.conn.IsConnected() {
		return nil, &Error{Code: CodeOffline, Message: "the agent is away"}
	}
	answer, err := c.ask(ctx, &nats.Msg{Subject: subject, Header: nats.Header{HeaderTimeout: {limit.String()}}, Data: body})
	switch {
	case err == nil:
		return ReadReply(answer)
	case errors.Is(err, nats.ErrNoResponders):
		return nil, &Error{Code: CodeOffline, Message: "nobody answers it: not connected, or it has no such method"}
	case errors.Is(err, nats.ErrReconnectBufExceeded):
		return nil, &Error{Code: CodeOffline, Message: "the agent is away"}
	case errors.Is(err, errLost):
		return nil, &Error{Code: CodeTimeout, Message: "the connection to the agent was lost before the answer came: it may have run"}
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &Error{Code: CodeTimeout, Message: fmt.Sprintf("no answer within %s: it may have run", limit)}
	}
	return nil, err
}

// callee is the subject of a target.
func (c *Client) callee(target string) (string, error) {
	module, method, isTwo := strings.Cut(target, "/")
	if !isTwo {
		module, method = "", target
	}
	if isTwo && !isName(module) || !isName(method) {
		return "", &Error{Code: CodeMalformed, Message: `want "<module>/<method>" or "hub/<name>"`}
	}
	if module == hub {
		return c.prefix + ".hub." + method, nil
	}
	if isTwo && c.Module != "" {
		return c.prefix + ".call." + module + "." + method, nil
	}
	return Prefix(c.Device, module) + ".rpc." + method, nil
}
