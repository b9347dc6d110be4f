package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// roots are where containerd keeps images. They may be on different filesystems.
// Both lines of containerd name them all.
type roots struct {
	content   string // directory of downloads
	snapshots string // directory of unpacked files; empty for a snapshotter that does not say
	database  string // file meta.db, two directories below containerd's root
}

func (r *Runtime) roots(ctx context.Context) (roots, error) {
	response, err := r.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1", "type==io.containerd.content.v1", "type==io.containerd.metadata.v1")
	if err != nil {
		return roots{}, fmt.Errorf("ask where containerd keeps its files: %w", err)
	}
	var found roots
	for _, p := range response.Plugins {
		switch {
		case p.Type == "io.containerd.content.v1" && p.ID == "content":
			found.content = p.Exports["root"]
		case p.Type == "io.containerd.snapshotter.v1" && p.ID == r.config.Snapshotter:
			found.snapshots = p.Exports["root"]
		case p.Type == "io.containerd.metadata.v1" && p.ID == "bolt":
			found.database = p.Exports["path"]
		}
	}
	if !filepath.IsAbs(found.content) || !filepath.IsAbs(found.database) {
		return roots{}, errors.New("containerd does not say where it keeps its files: is it of another line than 1.6 or 2?")
	}
	return found, nil
}

// sync brings what containerd has downloaded and unpacked to the disk. It can
// do so itself only from version 2.0 on.
func (r *Runtime) sync(ctx context.Context) error {
	found, err := r.roots(ctx)
	if err != nil {
		return err
	}
	for _, root := range []string{found.content, found.snapshots} {
		if root == "" {
			continue
		}
		if err := syncfs(root); err != nil {
			return fmt.Errorf("sync %s: %w", root, err)
		}
	}
	if found.snapshots == "" || r.config.Snapshotter != DefaultSnapshotter {
		unix.Sync() // its files may be on filesystems of their own
	}
	return nil
}

func syncfs(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
