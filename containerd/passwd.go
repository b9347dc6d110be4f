package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxUserFile bounds an image's /etc/passwd and /etc/group, in bytes.
const maxUserFile = 1 << 20

// user gives the ids that spec means in the image whose files are the snapshot
// chain.
func (r *Runtime) user(ctx context.Context, spec, chain string) (user, error) {
	if spec == "" {
		return user{}, nil
	}
	if ids, err := parseIDs(spec); err == nil {
		return ids, nil
	}
	var passwd, group string
	err := r.view(ctx, chain, func(root string) (err error) {
		if passwd, err = readInside(root, "etc/passwd"); err != nil {
			return err
		}
		group, err = readInside(root, "etc/group")
		return err
	})
	if err != nil {
		return user{}, fmt.Errorf("user %q: look into the image: %w", spec, err)
	}
	return resolveUser(spec, passwd, group)
}

// view calls f with a folder where the snapshot is mounted, read-only.
func (r *Runtime) view(ctx context.Context, chain string, f func(root string) error) error {
	key := "tidemark-view-" + chain
	unlock, err := r.busy.lock(ctx, key)
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

// readInside reads a regular file below root; no file is an empty one. Links
// that lead out of root, devices and pipes are refused: an image may hold
// anything.
func readInside(dir, name string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("/%s is not a regular file", name)
	}
	if info.Size() > maxUserFile {
		return "", fmt.Errorf("/%s is larger than %d bytes", name, maxUserFile)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxUserFile))
	return string(b), err
}
