package twin

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// attempt is how long one request waits for its answer. A request that changes
// nothing when it is repeated is repeated until its context ends, since an
// answer can be lost when the agent restarts.
const attempt = 5 * time.Second

// errLost says that the connection went before the answer came.
var errLost = errors.New("connection to the agent lost before it answered")

// ask is one request that waits for its answer.
type ask struct {
	subject string
	cancel  context.CancelCauseFunc
}

// ask waits for an answer no longer than the connection lives that it would
// come by.
func (c *Client) ask(ctx context.Context, msg *nats.Msg) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &ask{msg.Subject, cancel}
	c.mu.Lock()
	c.asks[a] = struct{}{}
	c.mu.Unlock()
	answer, err := c.conn.RequestMsgWithContext(ctx, msg)
	c.mu.Lock()
	delete(c.asks, a)
	c.mu.Unlock()
	switch {
	case err == nil:
		return answer.Data, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, err
}

// give ends all requests with a reason, or those to one subject.
func (c *Client) give(reason error, subject string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for a := range c.asks {
		if subject == "" || a.subject == subject {
			a.cancel(reason)
		}
	}
}

// refused takes what the server says and no call returns: that this identity
// may not publish to a subject, which whoever waits for an answer should know.
func (c *Client) refused(err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	_, rest, ok := strings.Cut(err.Error(), `for Publish to "`)
	if subject, _, quoted := strings.Cut(rest, `"`); ok && quoted {
		c.give(&Error{Code: CodeRefused, Message: "this identity may not ask " + subject}, subject)
	}
}

// request asks once, but waits with asking until there is somebody to ask who is
// not too busy.
func (c *Client) request(ctx context.Context, msg *nats.Msg) ([]byte, error) {
	for {
		if c.conn.IsConnected() {
			answer, err := c.ask(ctx, msg)
			if err == nil && !isBusy(answer) {
				return answer, nil
			}
			if err != nil && !unheard(err) {
				return nil, err
			}
		}
		if err := c.pause(ctx); err != nil {
			return nil, err
		}
	}
}

// unheard reports that a request surely reached nobody.
func unheard(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrReconnectBufExceeded)
}

// isBusy reports an answer that asks to try again.
func isBusy(answer []byte) bool {
	if !bytes.HasPrefix(answer, []byte(`{"error":`)) {
		return false
	}
	a, err := ReadAnswer(answer)
	return err != nil && a.Error != nil && a.Error.Code == CodeBusy
}

// repeat asks until there is an answer.
func (c *Client) repeat(ctx context.Context, msg *nats.Msg) ([]byte, error) {
	for {
		try, cancel := context.WithTimeout(ctx, attempt)
		answer, err := c.request(try, msg)
		cancel()
		if err == nil {
			return answer, nil
		}
		again := errors.Is(err, errLost) || errors.Is(err, context.DeadlineExceeded)
		if !again || ctx.Err() != nil || c.closing.Err() != nil {
			return nil, err
		}
	}
}

// pause waits a moment before the next look for the agent.
func (c *Client) pause(ctx context.Context) error {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.closing.Done():
		return nats.ErrConnectionClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
