package containerd

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/schema"
)

// Prune deletes every image that is neither in keep, nor what a container was
// made from, nor being pulled; when it returns, their files are gone. It must not
// run while an image that is not in keep waits to be started.
//
// It works on a full disk: the room that deleting needs is kept as ballast.
func (r *Runtime) Prune(ctx context.Context, keep []schema.Image) error {
	at, err := r.roots(ctx)
	if err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	if err := shed(at); err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	if err := r.release(ctx, keep); err != nil {
		return err
	}
	if err := r.collect(ctx); err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	load(at)
	return nil
}

// release lets go of the images' records and of leases.
func (r *Runtime) release(ctx context.Context, keep []schema.Image) error {
	needed := map[string]bool{}
	for _, image := range keep {
		needed[string(image)] = true
	}
	records, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("prune images: list containers: %w", err)
	}
	for _, c := range records {
		needed[c.Image] = true
	}
	images, err := r.client.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	for _, image := range images {
		if needed[image.Name] || r.busy.IsHeld(image.Name) {
			continue
		}
		failpoint.Reach("containerd.pruning")
		if err := r.client.ImageService().Delete(ctx, image.Name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("prune image %s: %w", image.Name, err)
		}
	}
	return r.pruneLeases(ctx, needed)
}

// pruneLeases lets go of pulls that nobody wants to finish, of leases of finished
// ones, and of those of collections that were cut short.
func (r *Runtime) pruneLeases(ctx context.Context, needed map[string]bool) error {
	held, err := r.client.LeasesService().List(ctx)
	if err != nil {
		return fmt.Errorf("prune leases: %w", err)
	}
	for _, lease := range slices.Clone(held) {
		image := lease.Labels[labelLeaseImage]
		if lease.Labels[labelLeaseCollects] == "" && (image == "" || r.busy.IsHeld(image)) {
			continue
		}
		if needed[image] {
			if _, err := r.rootfs(ctx, schema.Image(image)); err != nil {
				continue // not finished yet
			}
		}
		if err := r.client.LeasesService().Delete(ctx, lease); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("prune lease %s: %w", lease.ID, err)
		}
	}
	return nil
}
