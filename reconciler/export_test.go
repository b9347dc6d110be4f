package reconciler

import (
	"context"

	"github.com/tidemark-edge/tidemark/schema"
)

// Settled brings r to where desired is last-good, and returns its pass.
func (r *Reconciler) Settled(ctx context.Context, desired schema.Desired) (pass func()) {
	r.load()
	r.next = &desired
	for range 3 {
		r.pass(ctx)
	}
	return func() { r.pass(ctx) }
}
