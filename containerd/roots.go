package containerd

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// roots are the directories in which containerd keeps images. They may be on
// different filesystems. Both lines of containerd name both.
type roots struct {
	content   string // downloads; empty when containerd does not name it
	snapshots string // unpacked files; empty when containerd does not name it
}

func (r *Runtime) roots(ctx context.Context) (roots, error) {
	response, err := r.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1", "type==io.containerd.content.v1")
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
		}
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
	if found.content == "" || found.snapshots == "" || r.config.Snapshotter != DefaultSnapshotter {
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
