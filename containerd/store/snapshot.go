package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
)

// Prepare makes the root filesystem of a container from an image's snapshot, in
// place of any that is left of a half-removed one, and returns how it is mounted.
func (s *Store) Prepare(ctx context.Context, id, chain string) ([]mount.Mount, error) {
	mounts, err := s.prepareOnce(ctx, id, chain)
	if errdefs.IsAlreadyExists(err) {
		if err = s.snapshots().Remove(ctx, id); err == nil {
			mounts, err = s.prepareOnce(ctx, id, chain)
		}
	}
	return mounts, err
}

// prepareOnce does so where there is none. containerd gives a snapshot's directory
// its name before it records the snapshot. Cut off between the two, it later gives
// the same name again, fails, and deletes what was in the way.
func (s *Store) prepareOnce(ctx context.Context, id, chain string) ([]mount.Mount, error) {
	mounts, err := s.snapshots().Prepare(ctx, id, chain)
	if err != nil && strings.Contains(err.Error(), "rename ") && strings.Contains(err.Error(), syscall.EEXIST.Error()) {
		mounts, err = s.snapshots().Prepare(ctx, id, chain)
	}
	return mounts, err
}

// Mounts returns what a container that is to run again mounts as its root
// filesystem, which was made by Prepare. One that is lost is made anew: what the
// module wrote there is gone, but it can run.
func (s *Store) Mounts(ctx context.Context, id, chain string) ([]mount.Mount, error) {
	mounts, err := s.snapshots().Mounts(ctx, id)
	if errdefs.IsNotFound(err) || err == nil && isLost(mounts) {
		mounts, err = s.Prepare(ctx, id, chain)
	}
	if err != nil {
		return nil, fmt.Errorf("mount its root filesystem: %w", err)
	}
	return mounts, nil
}

// isLost reports whether a snapshot is recorded without its directories. containerd
// syncs the record, and never the directories, so that is what a power cut soon
// after leaves. Where not even the directory with all snapshots is to be seen,
// nothing is known.
func isLost(mounts []mount.Mount) bool {
	for _, m := range mounts {
		for _, dir := range writtenBy(m) {
			_, err := os.Lstat(dir)
			_, all := os.Lstat(filepath.Dir(filepath.Dir(dir)))
			if errors.Is(err, fs.ErrNotExist) && all == nil {
				return true
			}
		}
	}
	return false
}

// writtenBy are the directories that a mount writes to: those of an overlay, or
// what is bound.
func writtenBy(m mount.Mount) []string {
	var dirs []string
	for _, option := range m.Options {
		for _, name := range []string{"upperdir=", "workdir="} {
			if dir, found := strings.CutPrefix(option, name); found {
				dirs = append(dirs, dir)
			}
		}
	}
	if m.Type == "bind" {
		dirs = append(dirs, m.Source)
	}
	return dirs
}
