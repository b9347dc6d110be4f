package containerd

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"

	"github.com/tidemark-edge/tidemark/containerd/account"
)

// user gives the ids that spec means in the image whose files are the snapshot
// chain.
func (r *Runtime) user(ctx context.Context, spec, chain string) (account.IDs, error) {
	if spec == "" {
		return account.IDs{}, nil
	}
	if ids, err := account.ParsePair(spec); err == nil {
		return ids, nil
	}
	var files account.Files
	err := r.view(ctx, chain, func(root string) (err error) {
		files, err = account.Read(root)
		return err
	})
	if err != nil {
		return account.IDs{}, fmt.Errorf("user %q: look into the image: %w", spec, err)
	}
	return files.Resolve(spec)
}

// view calls f with a folder where the snapshot is mounted, read-only.
func (r *Runtime) view(ctx context.Context, chain string, f func(root string) error) error {
	key := "tidemark-view-" + chain
	unlock, err := r.busy.Lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, done, err := r.client.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(time.Hour))
	if err != nil {
		return err
	}
	mounts, err := r.snapshots().View(ctx, key, chain)
	if errdefs.IsAlreadyExists(err) { // of an agent that was killed
		mounts, err = r.snapshots().Mounts(ctx, key)
	}
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := detached(ctx)
		defer cancel()
		// What stays is found above the next time, and collected with the lease.
		_ = r.snapshots().Remove(ctx, key)
		_ = done(ctx)
	}()
	for i := range mounts {
		mounts[i].Options = append(mounts[i].Options, "nodev", "nosuid", "noexec")
	}
	return mount.WithReadonlyTempMount(ctx, mounts, f)
}
