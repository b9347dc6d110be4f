package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// need is what images will take of the disk, in bytes, beyond what they have.
type need struct {
	download int64                  // compressed layers, without what has come of them
	unpacked int64                  // estimated
	layers   map[digest.Digest]bool // that are counted in download
	chains   map[digest.Digest]bool // that are counted in unpacked
}

// Room reports whether images, as far as they are not on the disk yet, fit
// there: they are refused with a *schema.NoRoomError. It asks the registry for
// the manifest and the configuration of an image that is not here, which are
// small, and for nothing else. Of an image that is ready it asks nothing
// (iotedge#3069).
//
// What is counted is the peak: a compressed layer is deleted only when the
// whole image is unpacked. Layers that images share are counted once.
func (s *Store) Room(ctx context.Context, images []signing.Verified) error {
	sum := need{layers: map[digest.Digest]bool{}, chains: map[digest.Digest]bool{}}
	for _, proof := range images {
		image := proof.Image()
		if image == "" {
			return errors.New("room: no proof that the image is signed")
		}
		if err := s.measure(ctx, image, &sum); err != nil {
			return fmt.Errorf("room for %s: %w", image, err)
		}
	}
	if sum.download == 0 && sum.unpacked == 0 {
		return nil
	}
	found, err := s.roots(ctx)
	if err != nil {
		return fmt.Errorf("room: %w", err)
	}
	return s.weigh(sum, found)
}

// measure adds to sum what image needs.
func (s *Store) measure(ctx context.Context, image schema.Image, sum *need) error {
	if _, err := s.Rootfs(ctx, image); !errors.Is(err, errNotReady) {
		return err // nil: it is ready
	}
	if err := s.purgeUnready(ctx); err != nil {
		return fmt.Errorf("purge what an earlier boot left: %w", err)
	}
	layers, err := s.layers(ctx, image)
	if err != nil {
		return err
	}
	// Layers are unpacked one on the other, so the uppermost one that is unpacked
	// has all below it.
	missing := len(layers)
	for ; missing > 0; missing-- {
		_, err := s.snapshots().Stat(ctx, layers[missing-1].chain.String())
		if err == nil {
			break
		}
		if !errdefs.IsNotFound(err) {
			return fmt.Errorf("look up a layer's files: %w", err)
		}
	}
	for _, layer := range layers[missing:] {
		if !sum.chains[layer.chain] {
			sum.chains[layer.chain] = true
			sum.unpacked = add(sum.unpacked, layer.unpacked())
		}
		if sum.layers[layer.desc.Digest] {
			continue
		}
		sum.layers[layer.desc.Digest] = true
		present, err := s.present(ctx, layer.desc)
		if err != nil {
			return err
		}
		sum.download = add(sum.download, max(0, layer.desc.Size-present))
	}
	return nil
}

// add does not overflow: a manifest may claim any sizes.
func add(a, b int64) int64 {
	if a > 1<<62-b {
		return 1 << 62
	}
	return a + b
}

// weigh compares what is needed with what is free, on each filesystem.
func (s *Store) weigh(sum need, found roots) error {
	reserve := int64(s.Reserve)
	if found.snapshots == "" {
		return fmt.Errorf("room: the snapshotter %s does not say where it keeps its files", s.Snapshotter)
	}
	one, err := sameFilesystem(found.content, found.snapshots)
	if err != nil {
		return fmt.Errorf("room: %w", err)
	}
	parts := []schema.NoRoomError{{Path: found.snapshots, Download: sum.download, Unpacked: sum.unpacked, Reserve: reserve}}
	if !one {
		parts = []schema.NoRoomError{
			{Path: found.content, Download: sum.download, Reserve: reserve},
			{Path: found.snapshots, Unpacked: sum.unpacked, Reserve: reserve},
		}
	}
	for _, part := range parts {
		if part.Download == 0 && part.Unpacked == 0 {
			continue
		}
		if part.Free, err = free(part.Path); err != nil {
			return fmt.Errorf("room: %w", err)
		}
		if part.Missing() > 0 {
			return &part
		}
	}
	return nil
}

// free is what a filesystem has for those who are not its reserve's owner.
func free(dir string) (int64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, fmt.Errorf("free bytes of %s: %w", dir, err)
	}
	return int64(stat.Bavail) * int64(stat.Frsize), nil
}

func sameFilesystem(a, b string) (bool, error) {
	var x, y unix.Stat_t
	if err := unix.Stat(a, &x); err != nil {
		return false, fmt.Errorf("look at %s: %w", a, err)
	}
	if err := unix.Stat(b, &y); err != nil {
		return false, fmt.Errorf("look at %s: %w", b, err)
	}
	return x.Dev == y.Dev, nil
}
