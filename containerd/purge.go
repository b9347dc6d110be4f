package containerd

import (
	"context"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
)

// purgeUnready, once, removes every image that has no marker, with its
// snapshots, and every download that a former boot began: of neither can be
// known what reached the disk.
func (r *Runtime) purgeUnready(ctx context.Context) error {
	unlock, err := r.busy.lock(ctx, "purge")
	if err != nil {
		return err
	}
	defer unlock()
	if r.purged {
		return nil
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	records, err := r.client.ImageService().List(ctx)
	if err != nil {
		return err
	}
	for _, record := range records {
		if record.Labels[labelReady] != "" {
			continue
		}
		if err := r.client.ImageService().Delete(ctx, record.Name, images.SynchronousDelete()); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	held, err := r.client.LeasesService().List(ctx)
	if err != nil {
		return err
	}
	for _, lease := range held {
		if lease.Labels[labelLeaseImage] == "" || lease.Labels[labelLeaseBoot] == boot {
			continue
		}
		// Synchronously, so that what it held is gone before a pull looks.
		if err := r.client.LeasesService().Delete(ctx, lease, leases.SynchronousDelete); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	r.purged = true
	return nil
}
