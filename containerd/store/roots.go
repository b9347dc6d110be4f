package store

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

func (s *Store) roots(ctx context.Context) (roots, error) {
	response, err := s.Client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1", "type==io.containerd.content.v1", "type==io.containerd.metadata.v1")
	if err != nil {
		return roots{}, fmt.Errorf("ask where containerd keeps its files: %w", err)
	}
	var found roots
	for _, p := range response.Plugins {
		switch {
		case p.Type == "io.containerd.content.v1" && p.ID == "content":
			found.content = p.Exports["root"]
		case p.Type == "io.containerd.snapshotter.v1" && p.ID == s.Snapshotter:
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

// belowItsRoot is the snapshotter of which it is known that all its files are on the
// filesystem of its root.
const belowItsRoot = "overlayfs"

// sync brings what containerd has downloaded and unpacked to the disk. It can
// do so itself only from version 2.0 on.
func (s *Store) sync(ctx context.Context) error {
	found, err := s.roots(ctx)
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
	if found.snapshots == "" || s.Snapshotter != belowItsRoot {
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
