package store

import (
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/tidemark-edge/tidemark/containerd/keyed"
	"github.com/tidemark-edge/tidemark/schema"
)

// Store keeps the images of one namespace of one containerd. Its methods may be
// called concurrently; its fields are set before the first call.
type Store struct {
	// Client speaks to the daemon, in the namespace.
	Client *client.Client
	// Snapshotter is the daemon's plugin that unpacks images.
	Snapshotter string
	// Registries says how to reach a registry, by host[:port], where the
	// defaults do not do.
	Registries map[string]schema.Registry
	// Reserve stays free where images are unpacked, in bytes.
	Reserve schema.Bytes

	busy   keyed.Lock // images being pulled, and what else is one at a time
	purged bool       // what a former boot left is gone; who holds the key "purge" may look
}

// snapshots are where files of images and containers are.
func (s *Store) snapshots() snapshots.Snapshotter {
	return s.Client.SnapshotService(s.Snapshotter)
}
