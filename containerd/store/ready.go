package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/schema"
)

// Labels of our image records. The first is the marker that everything else
// has reached the disk; they are set together.
const (
	labelReady       = "tidemark.io/ready"  // the snapshotter that it is unpacked with
	labelImageChain  = "tidemark.io/chain"  // the unpacked snapshot
	labelImageConfig = "tidemark.io/config" // digest of the configuration that was chosen for this platform
	labelImageUser   = "tidemark.io/user"   // uid:gid[,group…] of the image's USER; absent where that has none
)

// maxImageConfig bounds an image's configuration, in bytes.
const maxImageConfig = 4 << 20

// errNotReady says that an image is not, or not surely, on the disk.
var errNotReady = errors.New("it is not on the disk: pull it first")

// Rootfs is an image that is on the disk and unpacked.
type Rootfs struct {
	Chain  string        // the snapshot with its files
	config digest.Digest // its configuration
	user   string        // label of that name; empty when the image's USER has no ids
}

// Rootfs returns an image that is ready, whole also after a power cut; of one that
// is not, the error says to pull it first. It costs two calls to the daemon.
func (s *Store) Rootfs(ctx context.Context, image schema.Image) (Rootfs, error) {
	record, err := s.Client.ImageService().Get(ctx, string(image))
	if errdefs.IsNotFound(err) {
		return Rootfs{}, errNotReady
	}
	if err != nil {
		return Rootfs{}, fmt.Errorf("look up the image: %w", err)
	}
	found := Rootfs{
		Chain:  record.Labels[labelImageChain],
		config: digest.Digest(record.Labels[labelImageConfig]),
		user:   record.Labels[labelImageUser],
	}
	if record.Labels[labelReady] != s.Snapshotter || record.Target.Digest.String() != image.Digest() || found.Chain == "" || found.config.Validate() != nil {
		return Rootfs{}, errNotReady
	}
	_, err = s.snapshots().Stat(ctx, found.Chain)
	if errdefs.IsNotFound(err) {
		return Rootfs{}, errNotReady
	}
	if err != nil {
		return Rootfs{}, fmt.Errorf("look up the image's files: %w", err)
	}
	return found, nil
}

// Config reads what a ready image wishes.
func (s *Store) Config(ctx context.Context, files Rootfs) (ocispec.ImageConfig, error) {
	return s.imageConfig(ctx, files.config)
}

func (s *Store) imageConfig(ctx context.Context, dgst digest.Digest) (ocispec.ImageConfig, error) {
	store := s.Client.ContentStore()
	info, err := store.Info(ctx, dgst)
	if err != nil {
		return ocispec.ImageConfig{}, fmt.Errorf("image configuration: %w", err)
	}
	if info.Size > maxImageConfig {
		return ocispec.ImageConfig{}, fmt.Errorf("image configuration: larger than %d bytes", maxImageConfig)
	}
	blob, err := content.ReadBlob(ctx, store, ocispec.Descriptor{Digest: dgst, Size: info.Size})
	if err != nil {
		return ocispec.ImageConfig{}, fmt.Errorf("image configuration: %w", err)
	}
	var image ocispec.Image
	if err := json.Unmarshal(blob, &image); err != nil {
		return ocispec.ImageConfig{}, fmt.Errorf("image configuration: %w", err)
	}
	return image.Config, nil
}

// makeReady writes the marker, after everything is on the disk.
func (s *Store) makeReady(ctx context.Context, image schema.Image) error {
	record, err := s.Client.ImageService().Get(ctx, string(image))
	if err != nil {
		return fmt.Errorf("look up the image: %w", err)
	}
	unpacked := client.NewImage(s.Client, record)
	layers, err := unpacked.RootFS(ctx)
	if err != nil {
		return fmt.Errorf("its layers: %w", err)
	}
	if len(layers) == 0 {
		return errors.New("the image has no files")
	}
	config, err := unpacked.Config(ctx)
	if err != nil {
		return fmt.Errorf("its configuration: %w", err)
	}
	chain := identity.ChainID(layers).String()
	labels := map[string]string{labelReady: s.Snapshotter, labelImageChain: chain, labelImageConfig: config.Digest.String()}
	wishes, err := s.imageConfig(ctx, config.Digest)
	if err != nil {
		return err
	}
	// A module may name a user of its own, so an image's that means nothing is
	// no fault yet.
	if u, err := s.resolve(ctx, wishes.User, chain); err == nil {
		labels[labelImageUser] = u.String()
	}
	failpoint.Reach("containerd.unsynced")
	if err := s.sync(ctx); err != nil {
		return err
	}
	failpoint.Reach("containerd.synced")
	record.Labels = labels
	if _, err := s.Client.ImageService().Update(ctx, record, "labels"); err != nil {
		return fmt.Errorf("mark it as ready: %w", err)
	}
	if at, err := s.roots(ctx); err == nil {
		load(at)
	}
	return nil
}
