package reconciler

import (
	"context"
	"maps"
	"slices"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// room sees to it, before the first byte is downloaded, that the images of a
// definition fit on the disk.
func (r *Reconciler) room(ctx context.Context, desired schema.Desired) error {
	return r.fitting(ctx, desired, func() error {
		var proofs []signing.Verified
		for _, image := range imagesOf(desired) {
			proofs = append(proofs, r.proof(image))
		}
		return r.Store.Room(ctx, proofs)
	})
}

// fitting does what needs room on the disk. Where there is none, it deletes the
// images that nothing needs and does it once more. What does not fit then is a
// refusal: a person has to make room, or the next prune.
func (r *Reconciler) fitting(ctx context.Context, desired schema.Desired, do func() error) error {
	err := do()
	if schema.IsNoRoom(err) {
		if r.sweep(ctx, r.needed) != nil {
			return err
		}
		err = do()
	}
	if schema.IsNoRoom(err) {
		return &schema.RefusedError{Revision: desired.Revision, Phase: schema.PhaseStaging, Err: err}
	}
	return err
}

// sweep deletes every image but those to keep, whatever else goes on.
func (r *Reconciler) sweep(ctx context.Context, keep func() []schema.Image) error {
	if !r.pruning.TryLock() {
		return errPulling
	}
	defer r.pruning.Unlock()
	r.Log.Info("the disk is full: delete images that nothing needs")
	return r.clear(ctx, keep)
}

// clear deletes every image but those to keep, and what is known of those that are
// not needed. The caller holds r.pruning for writing.
func (r *Reconciler) clear(ctx context.Context, keep func() []schema.Image) error {
	r.mu.Lock()
	kept, needed := keep(), r.needed()
	maps.DeleteFunc(r.shelf, func(image schema.Image, _ item) bool { return !slices.Contains(needed, image) })
	for image, i := range r.shelf {
		i.pulled = i.pulled && slices.Contains(kept, image)
		r.shelf[image] = i
	}
	r.mu.Unlock()
	err := r.Store.Prune(ctx, kept)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.note(troublePrune, err)
	return err
}

// needed are the images of what runs, can run again, or is being staged. The
// caller holds r.mu.
func (r *Reconciler) needed() []schema.Image {
	keep := append(r.essential(), r.staging...)
	slices.Sort(keep)
	return slices.Compact(keep)
}

// essential are the images of what runs, can run again, or is about to: what is
// still being staged can be downloaded again. The caller holds r.mu.
func (r *Reconciler) essential() []schema.Image {
	keep := imagesOf(r.state.Target, r.state.LastGood)
	if r.next != nil {
		keep = append(keep, imagesOf(*r.next)...)
	}
	slices.Sort(keep)
	return slices.Compact(keep)
}
