package twin

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
)

// Send hands a message over under a name of the module's choice (a DNS label),
// for the hub and for whomever else the routes say. It returns when the message
// is on the device's disk: from then on it is not lost, and no outage matters.
//
// Messages that are sent at the same time share one sync of the disk, so that
// many goroutines that send are many times as fast as one. Those that one
// goroutine sends one after the other stay in their order.
//
// While the device has too much to store it waits until ctx ends. A queue that
// is full and refuses, by its definition, is an *Error with CodeNoSpace. On any
// other error than an *Error the message may have been stored all the same;
// sending it again can then store it twice.
func (c *Client) Send(ctx context.Context, name string, body []byte) error {
	return c.SendWith(ctx, name, nil, body)
}

// SendWith is Send with headers: for the conditions of routes, and for whoever
// receives the message. Names that begin with Nats- or Tidemark- are not the
// sender's to use.
func (c *Client) SendWith(ctx context.Context, name string, header nats.Header, body []byte) error {
	if err := checkOutgoing(name, header, body); err != nil {
		return fmt.Errorf("send %s: %w", clip(name), err)
	}
	msg := &nats.Msg{Subject: c.prefix + ".out." + name, Header: header, Data: body}
	answer, err := c.request(ctx, msg)
	if err == nil {
		_, err = ReadAnswer(answer)
	}
	if err != nil {
		return fmt.Errorf("send %s: %w", name, err)
	}
	return nil
}

// checkOutgoing reports what the device would refuse.
func checkOutgoing(name string, header nats.Header, body []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	if len(body) > MaxBody {
		return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("body has %d bytes, and may have %d", len(body), MaxBody)}
	}
	size, count := 0, 0
	for key, values := range header {
		if isReserved(key) {
			return &Error{Code: CodeMalformed, Path: clip(key), Message: "header is not the sender's to use"}
		}
		for _, v := range values {
			size, count = size+len(key)+len(v), count+1
		}
	}
	if size > MaxHeaders || count > MaxHeaderValues {
		return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("%d headers of %d bytes: there may be %d, of %d bytes", count, size, MaxHeaderValues, MaxHeaders)}
	}
	return nil
}
