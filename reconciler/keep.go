package reconciler

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// forever is longer than anybody waits.
const forever = 365 * 24 * time.Hour

// keeping sees to it that the images of the target and of last-good are verified
// and on the disk, and that others do not stay there.
func (r *Reconciler) keeping(ctx context.Context) {
	for tries := 0; ctx.Err() == nil; {
		err := r.stock(ctx)
		if err == nil {
			err = r.prune(ctx)
		}
		if err == nil {
			tries = 0
			pause(ctx, forever, &r.restock)
		} else {
			pause(ctx, retryAfter(tries), &r.restock)
			tries++
		}
	}
}

// stock verifies and pulls what the target and last-good need. After a start
// that is a look at the disk; when all is well it is nothing. A change of the
// target cuts it short.
func (r *Reconciler) stock(ctx context.Context) error {
	within, leave := context.WithCancel(ctx)
	defer leave()
	r.mu.Lock()
	r.leave = leave
	images := imagesOf(r.state.Target, r.state.LastGood)
	r.mu.Unlock()
	err := r.fetchAll(within, images)
	if within.Err() != nil {
		return err
	}
	r.note(troubleImages, err)
	if schema.IsNoRoom(err) {
		return errors.Join(err, r.sweep(ctx, r.essential))
	}
	return err
}

// fetchAll verifies images and pulls those that are verified. No verification,
// without which nothing runs after a boot, waits for a download.
func (r *Reconciler) fetchAll(ctx context.Context, images []schema.Image) error {
	verified := make(chan int, len(images))
	errs := make([]error, len(images))
	var pulling sync.WaitGroup
	for range imagesAtOnce {
		pulling.Go(func() {
			for i := range verified {
				errs[i] = r.pull(ctx, images[i])
			}
		})
	}
	index := make(map[schema.Image]int, len(images))
	for i, image := range images {
		index[image] = i
	}
	err := each(ctx, images, func(ctx context.Context, image schema.Image) error {
		err := r.verify(ctx, image)
		if err == nil {
			verified <- index[image]
		}
		return err
	})
	close(verified)
	pulling.Wait()
	return cmp.Or(err, cmp.Or(errs...))
}

var errPulling = errors.New("images are being pulled")

// prune deletes the images that neither the target nor last-good nor the candidate
// needs, once the target is settled and good, and it is clear what the candidate
// needs.
func (r *Reconciler) prune(ctx context.Context) error {
	if !r.pruning.TryLock() {
		return errPulling
	}
	defer r.pruning.Unlock()
	r.mu.Lock()
	idle := r.pruned || r.unsaved || r.state.Trial || !r.settled || !r.state.accepted() || time.Now().Before(r.unclear)
	r.pruned = r.pruned || !idle // unless there is more to prune by the end
	r.mu.Unlock()
	if idle {
		return nil
	}
	err := r.clear(ctx, r.needed)
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		r.mu.Lock()
		r.pruned = false
		r.mu.Unlock()
	}
	r.hurry() // what found no room may find it now
	return err
}
