package store

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"

	"github.com/tidemark-edge/tidemark/containerd/account"
)

// User gives the ids that named means in a ready image: "user", "user:group", each
// a name or a number; empty is the image's own USER. What is neither a number nor
// in the image's files is an error.
func (s *Store) User(ctx context.Context, files Rootfs, named string) (account.IDs, error) {
	switch {
	case named != "":
		return s.resolve(ctx, named, files.Chain)
	case files.user != "":
		return account.Parse(files.user)
	}
	wishes, err := s.Config(ctx, files)
	if err != nil {
		return account.IDs{}, err
	}
	return s.resolve(ctx, wishes.User, files.Chain)
}

// resolve gives the ids that spec means in the image whose files are the snapshot
// chain.
func (s *Store) resolve(ctx context.Context, spec, chain string) (account.IDs, error) {
	if spec == "" {
		return account.IDs{}, nil
	}
	if ids, err := account.ParsePair(spec); err == nil {
		return ids, nil
	}
	var files account.Files
	err := s.view(ctx, chain, func(root string) (err error) {
		files, err = account.Read(root)
		return err
	})
	if err != nil {
		return account.IDs{}, fmt.Errorf("user %q: look into the image: %w", spec, err)
	}
	return files.Resolve(spec)
}

// view calls f with a folder where the snapshot is mounted, read-only.
func (s *Store) view(ctx context.Context, chain string, f func(root string) error) error {
	key := "tidemark-view-" + chain
	unlock, err := s.busy.Lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, done, err := s.Client.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(time.Hour))
	if err != nil {
		return err
	}
	mounts, err := s.snapshots().View(ctx, key, chain)
	if errdefs.IsAlreadyExists(err) { // of an agent that was killed
		mounts, err = s.snapshots().Mounts(ctx, key)
	}
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		// What stays is found above the next time, and collected with the lease.
		_ = s.snapshots().Remove(ctx, key)
		_ = done(ctx)
	}()
	for i := range mounts {
		mounts[i].Options = append(mounts[i].Options, "nodev", "nosuid", "noexec")
	}
	return mount.WithReadonlyTempMount(ctx, mounts, f)
}
