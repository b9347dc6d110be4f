package leaf

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// Probe calls a direct method of a module, with {}, and returns nil when the
// answer is not an error. It waits as long as ctx does. An error that wraps
// schema.ErrNotAsked says nothing about the module.
func (l *Leaf) Probe(ctx context.Context, module, method string) error {
	subject := twin.Prefix(l.config.Device, module) + ".rpc." + method
	msg, err := twin.RequestMsg(ctx, l.methods.local, &nats.Msg{Subject: subject, Data: []byte("{}")})
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("rpc.%s: nobody answers", method)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("rpc.%s: %w", method, context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("rpc.%s: %w: %w", method, schema.ErrNotAsked, err)
	}
	if answer, err := twin.ReadAnswer(msg.Data); answer.Error != nil {
		return fmt.Errorf("rpc.%s: %w", method, err)
	}
	return nil // an answer of any form, also none that ReadAnswer knows
}
