package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/schema"
)

// Prune deletes every image that is neither in keep, nor what a container was
// made from, nor being pulled; when it returns, their files are gone. It must not
// run while an image that is not in keep waits to be started.
//
// It works on a full disk: the room that deleting needs is kept as ballast.
func (s *Store) Prune(ctx context.Context, keep []schema.Image) error {
	at, err := s.roots(ctx)
	if err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	if err := shed(at); err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	if err := s.release(ctx, keep); err != nil {
		return err
	}
	if err := s.collect(ctx); err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	load(at)
	return nil
}

// release lets go of the images' records and of leases.
func (s *Store) release(ctx context.Context, keep []schema.Image) error {
	needed := map[string]bool{}
	for _, image := range keep {
		needed[string(image)] = true
	}
	records, err := s.Client.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("prune images: list containers: %w", err)
	}
	for _, c := range records {
		needed[c.Image] = true
	}
	images, err := s.Client.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	for _, image := range images {
		if needed[image.Name] || s.busy.IsHeld(image.Name) {
			continue
		}
		failpoint.Reach("containerd.pruning")
		if err := s.Client.ImageService().Delete(ctx, image.Name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("prune image %s: %w", image.Name, err)
		}
	}
	return s.pruneLeases(ctx, needed)
}

// pruneLeases lets go of pulls that nobody wants to finish, of leases of finished
// ones, and of those of collections that were cut short.
func (s *Store) pruneLeases(ctx context.Context, needed map[string]bool) error {
	held, err := s.Client.LeasesService().List(ctx)
	if err != nil {
		return fmt.Errorf("prune leases: %w", err)
	}
	for _, lease := range slices.Clone(held) {
		image := lease.Labels[labelLeaseImage]
		if lease.Labels[labelLeaseCollects] == "" && (image == "" || s.busy.IsHeld(image)) {
			continue
		}
		if needed[image] {
			if _, err := s.Rootfs(ctx, schema.Image(image)); err != nil {
				continue // not finished yet
			}
		}
		if err := s.Client.LeasesService().Delete(ctx, lease); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("prune lease %s: %w", lease.ID, err)
		}
	}
	return nil
}

// collect runs containerd's garbage collection to its end, so that what is
// deleted is gone, and so that what hinders it is told. The lease of a
// collection that was cut short goes with the next Prune.
func (s *Store) collect(ctx context.Context) error {
	service := s.Client.LeasesService()
	lease, err := service.Create(ctx, leases.WithRandomID(), leases.WithLabels(map[string]string{labelLeaseCollects: "true"}))
	if err == nil {
		failpoint.Reach("containerd.collect")
		err = service.Delete(ctx, lease, leases.SynchronousDelete)
	}
	if err != nil {
		return fmt.Errorf("collect what is deleted: %w", err)
	}
	return nil
}
