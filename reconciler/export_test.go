package reconciler

import (
	"context"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// Settled brings r to where desired is last-good, and returns its pass.
func (r *Reconciler) Settled(ctx context.Context, desired schema.Desired) (pass func()) {
	r.load()
	r.needs(ctx, nil)
	r.next = &desired
	for range 3 {
		r.pass(ctx)
	}
	return func() { r.pass(ctx) }
}

// Downtime is for how long a module was down when it was replaced last.
func (r *Reconciler) Downtime(module string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.downtime(module)
}

// Verify has one image verified.
func (r *Reconciler) Verify(ctx context.Context, image schema.Image) error {
	return r.verify(ctx, image)
}

// Prune prunes once.
func (r *Reconciler) Prune(ctx context.Context) error { return r.prune(ctx) }
