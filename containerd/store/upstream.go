package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidemark-edge/tidemark/schema"
)

// upstream is a remotes.Resolver of one image: it asks the registry for nothing
// that is in the content store, and goes on where a link was cut.
type upstream struct {
	remotes.Resolver
	image  schema.Image
	wire   *http.Transport // this image's own
	store  content.Store
	refuse func(ocispec.Descriptor) // told of what the registry does not go on with in the middle; may be nil
}

func (s *Store) upstream(image schema.Image) (*upstream, error) {
	wire := docker.DefaultHTTPTransport(nil)
	resolver, err := s.resolver(image.Registry(), wire)
	if err != nil {
		return nil, err
	}
	return &upstream{Resolver: resolver, image: image, wire: wire, store: s.Client.ContentStore()}, nil
}

// close ends the connections to the registry, which nobody could use again and
// which would idle for half a minute; one that is still read from ends after that.
func (u *upstream) close() { u.wire.CloseIdleConnections() }

// Resolve describes what the image's digest means.
func (u *upstream) Resolve(ctx context.Context, ref string) (string, ocispec.Descriptor, error) {
	if desc, ok := u.stored(ctx); ok {
		return ref, desc, nil
	}
	var name string
	var desc ocispec.Descriptor
	err := insist(ctx, func() (err error) {
		name, desc, err = u.Resolver.Resolve(ctx, ref)
		return err
	})
	if err != nil {
		return "", desc, err
	}
	if desc.MediaType == images.MediaTypeDockerSchema1Manifest {
		return "", desc, errors.New("it has a Docker manifest of schema 1, which is not supported: push it again as an OCI image")
	}
	if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
		return "", desc, fmt.Errorf("the registry calls it %q, which is not an image", desc.MediaType)
	}
	if desc.Digest.String() != u.image.Digest() || desc.Size <= 0 || desc.Size > maxDocument {
		return "", desc, fmt.Errorf("the registry calls it %s of %d bytes", desc.Digest, desc.Size)
	}
	return name, desc, nil
}

// stored is what the image's digest means when that is on the disk.
func (u *upstream) stored(ctx context.Context) (ocispec.Descriptor, bool) {
	desc := ocispec.Descriptor{Digest: digest.Digest(u.image.Digest())}
	info, err := u.store.Info(ctx, desc.Digest)
	if err != nil || info.Size > maxDocument {
		return desc, false
	}
	desc.Size = info.Size
	b, err := content.ReadBlob(ctx, u.store, desc)
	if err != nil {
		return desc, false
	}
	// An OCI document need not say its type; one that could be either is not
	// guessed at (CVE-2021-41190).
	var doc struct {
		MediaType         string
		Manifests, Layers json.RawMessage
	}
	if json.Unmarshal(b, &doc) != nil {
		return desc, false
	}
	desc.MediaType = doc.MediaType
	switch {
	case doc.MediaType != "":
	case doc.Manifests != nil && doc.Layers == nil:
		desc.MediaType = ocispec.MediaTypeImageIndex
	case doc.Layers != nil && doc.Manifests == nil:
		desc.MediaType = ocispec.MediaTypeImageManifest
	}
	return desc, images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType)
}

// Fetcher is remotes.Resolver's.
func (u *upstream) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	fetcher, err := u.Resolver.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	return patient{fetcher, u.refuse}, nil
}

// SetOptions is remotes.ResolverWithOptions': client.Pull says by it how many
// downloads it wants at once.
func (u *upstream) SetOptions(options ...transfer.ImageResolverOption) {
	if r, ok := u.Resolver.(remotes.ResolverWithOptions); ok {
		r.SetOptions(options...)
	}
}
