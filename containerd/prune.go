package containerd

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/schema"
)

// Prune lets go of every image that is neither in keep, nor what a container
// was made from, nor being pulled. containerd then collects its files in its
// own time. It must not run while an image that is not in keep waits to be
// started.
func (r *Runtime) Prune(ctx context.Context, keep []schema.Image) error {
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
		if needed[image.Name] || r.busy.isHeld(image.Name) {
			continue
		}
		failpoint.Reach("containerd.pruning")
		if err := r.client.ImageService().Delete(ctx, image.Name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("prune image %s: %w", image.Name, err)
		}
	}
	return r.pruneLeases(ctx, needed)
}

// pruneLeases lets go of pulls that nobody wants to finish, and of leases of
// finished ones.
func (r *Runtime) pruneLeases(ctx context.Context, needed map[string]bool) error {
	held, err := r.client.LeasesService().List(ctx)
	if err != nil {
		return fmt.Errorf("prune leases: %w", err)
	}
	for _, lease := range slices.Clone(held) {
		image := lease.Labels[labelLeaseImage]
		if image == "" || r.busy.isHeld(image) {
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
