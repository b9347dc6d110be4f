package twin

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
)

// maxQueues bounds how many queues an input remembers the last message of.
const maxQueues = 64

// OnInput calls f with each message that routes lead to the module's input of
// this name, one call at a time, those of one route in their order. A nil error
// takes the message; on any other it comes again, with growing pauses, until its
// time to live ends, and the route's later messages wait behind it.
//
// A message that was taken can come again, where the answer was lost or the
// agent ended before it had written it down. Within the life of a Client that is
// noticed, and f not called; over a restart of the module Epoch and Seq tell. The
// context ends with Close. There is one f to a name.
func (c *Client) OnInput(name string, f func(context.Context, Message) error) error {
	in := input{f: f, last: map[string]uint64{}}
	err := c.serve("in", name, func(m *nats.Msg) { _ = m.Respond(in.take(c.closing, m)) })
	if err != nil {
		return fmt.Errorf("receive %s: %w", clip(name), err)
	}
	return nil
}

// input is what one name's messages are given to, one at a time.
type input struct {
	f    func(context.Context, Message) error
	last map[string]uint64 // newest that was taken of each queue, by epoch
}

// take returns what to answer to a message: nothing takes it.
func (in *input) take(ctx context.Context, m *nats.Msg) []byte {
	message, err := ReadMessage(m.Header, m.Data)
	if err != nil {
		return Refusal(err)
	}
	named := message.Epoch != "" && message.Seq != 0
	if named && message.Seq <= in.last[message.Epoch] {
		return nil // its answer was lost, or came too late; a queue's messages come in order
	}
	if err := in.f(ctx, message); err != nil {
		return Refusal(err)
	}
	if named {
		if len(in.last) >= maxQueues {
			clear(in.last)
		}
		in.last[message.Epoch] = message.Seq
	}
	return nil
}
