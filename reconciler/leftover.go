package reconciler

import (
	"context"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// A candidate that is dropped leaves images on the disk, and its successor often
// needs most of them: the next commit mends one module of ten. So what nothing
// needs is deleted soon, but not before it is clear what the successor needs.

// mendTime is how long that waits for a commit that mends one which does not
// render: to download everything again may take longer.
const mendTime = 15 * time.Minute

// leaveBehind drops the candidate, for another one. The caller holds r.mu.
func (r *Reconciler) leaveBehind() {
	if r.next != nil || r.staging != nil {
		r.pruned = false
	}
	r.next, r.staging = nil, nil
	r.unclear = time.Now().Add(forever)
}

// needs takes down which images the candidate needs; none where there is none.
func (r *Reconciler) needs(ctx context.Context, images []schema.Image) {
	r.change(func() {
		if ctx.Err() == nil {
			r.staging, r.unclear = images, time.Time{}
		}
	})
	r.restock.now()
}
