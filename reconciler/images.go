package reconciler

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// imagesAtOnce is how many images are verified or pulled at a time.
const imagesAtOnce = 4

// shelf is what is known of the images that the device needs.
type shelf map[schema.Image]item

// item is one image on the shelf.
type item struct {
	proof  signing.Verified // zero until verified
	pulled bool             // on the disk, unpacked
	err    error            // why one of the two is not so
}

// lacks says what keeps a module from running from the image; a container that
// exists needs the proof only.
func (s shelf) lacks(image schema.Image, exists bool) string {
	i := s[image]
	switch {
	case i.proof.Image() != image && i.err == nil:
		return "image is not verified yet"
	case i.proof.Image() != image:
		return fmt.Sprintf("image is not verified: %v", i.err)
	case i.pulled || exists:
		return ""
	case i.err == nil:
		return "image is not on the disk yet"
	default:
		return fmt.Sprintf("image is not on the disk: %v", i.err)
	}
}

func (r *Reconciler) item(image schema.Image) item {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shelf[image]
}

func (r *Reconciler) proof(image schema.Image) signing.Verified { return r.item(image).proof }

func (r *Reconciler) shelve(image schema.Image, i item) {
	r.change(func() { r.shelf[image] = i })
	r.look.now()
}

// verify has the image verified, unless it is since the agent started. Like
// pulling it does not run beside prune, which takes along the evidence of images
// that are not needed: a candidate's would be gone at the next boot.
func (r *Reconciler) verify(ctx context.Context, image schema.Image) error {
	r.pruning.RLock()
	defer r.pruning.RUnlock()
	if r.proof(image).Image() == image {
		return nil
	}
	proof, err := r.Verifier.Verify(ctx, image)
	if err == nil && proof.Image() != image {
		err = fmt.Errorf("verify %s: the proof is for %q", image, proof.Image())
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.shelve(image, item{err: err})
		return err
	}
	r.shelve(image, item{proof: proof})
	return nil
}

// pull has a verified image on the disk, unless it is there already.
func (r *Reconciler) pull(ctx context.Context, image schema.Image) error {
	r.pruning.RLock()
	defer r.pruning.RUnlock()
	i := r.item(image)
	if i.pulled {
		return nil
	}
	i.err = r.Store.Pull(ctx, i.proof)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if i.err != nil {
		i.err = fmt.Errorf("pull %s: %w", image, i.err)
	}
	i.pulled = i.err == nil
	r.shelve(image, i)
	return i.err
}

// doubtTimeout bounds a look at an image that is on the disk.
const doubtTimeout = 30 * time.Second

// doubt has an image pulled again, which is a look at the disk if it is whole: a
// module could not be started from it. What takes longer is a download, and waits
// its turn among those.
func (r *Reconciler) doubt(ctx context.Context, image schema.Image) {
	r.mu.Lock()
	i, known := r.shelf[image]
	if i.pulled = false; known {
		r.shelf[image] = i
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, doubtTimeout)
	defer cancel()
	if known && r.pull(ctx, image) != nil {
		r.restock.now()
	}
}

// each does something for every image, a few at a time, and returns the first
// error in the order of the images.
func each(ctx context.Context, images []schema.Image, do func(context.Context, schema.Image) error) error {
	errs := make([]error, len(images))
	turns := make(chan struct{}, imagesAtOnce)
	var all sync.WaitGroup
	for i, image := range images {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			errs[i] = do(ctx, image)
		})
	}
	all.Wait()
	return cmp.Or(errs...)
}

// imagesOf are the images that definitions need on the disk, without repetition
// and in their order: those of modules that shall run, and those to keep.
func imagesOf(definitions ...schema.Desired) []schema.Image {
	seen := map[schema.Image]bool{}
	var images []schema.Image
	add := func(image schema.Image) {
		if !seen[image] {
			seen[image] = true
			images = append(images, image)
		}
	}
	for _, d := range definitions {
		for _, m := range d.Modules {
			if m.Status != schema.StatusStopped {
				add(m.Image)
			}
		}
		for _, image := range d.Keep {
			add(image)
		}
	}
	return images
}
