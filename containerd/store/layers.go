package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidemark-edge/tidemark/schema"
)

// Bounds on what is read of an image to know its layers.
const (
	maxDocument  = maxImageConfig // of an index, a manifest, a configuration; bytes
	maxDocuments = 16             // of one image
	maxLayers    = 512
)

// layer is one layer of an image for this platform.
type layer struct {
	desc  ocispec.Descriptor
	chain digest.Digest // the snapshot of it and all below it
	kind  string        // how it is compressed
}

// How much larger a layer is when it is unpacked, by its compression, in
// tenths. Measured: libraries, programs, Perl and Python of Debian and a Go binary
// come to 2.7 to 3.4 with gzip -6 and to 2.7 to 3.7 with zstd -3. Files fill whole
// blocks, which the padding of tar's records roughly makes up for.
var growth = map[string]int64{"gzip": 30, "zstd": 35, "unknown": 30, "": 10}

// labelUncompressed is the annotation in which estargz and zstd:chunked say how
// large a layer is unpacked. It is in the manifest, so it is signed.
const labelUncompressed = "io.containers.estargz.uncompressed-size"

// unpacked is how many bytes the layer's files will take, about.
func (l layer) unpacked() int64 {
	if n, err := strconv.ParseInt(l.desc.Annotations[labelUncompressed], 10, 64); err == nil && n >= 0 {
		return n
	}
	if l.desc.Size > 1<<58 {
		return 1 << 62
	}
	return l.desc.Size / 10 * growth[l.kind]
}

// layers reads the layers of image for this platform, lowest first: from the
// content store, and what is not there from the registry.
func (s *Store) layers(ctx context.Context, image schema.Image) ([]layer, error) {
	up, err := s.upstream(image)
	if err != nil {
		return nil, err
	}
	defer up.close()
	return up.layers(ctx)
}

func (u *upstream) layers(ctx context.Context) ([]layer, error) {
	_, root, err := u.Resolve(ctx, string(u.image))
	if err != nil {
		return nil, err
	}
	docs := &documents{upstream: u, read: map[digest.Digest][]byte{}}
	manifest, err := images.Manifest(ctx, docs, root, platforms.Default())
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("the registry does not have it for this platform: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("its manifest: %w", err)
	}
	if len(manifest.Layers) > maxLayers {
		return nil, fmt.Errorf("its manifest: %d layers; at most %d are taken", len(manifest.Layers), maxLayers)
	}
	raw, err := content.ReadBlob(ctx, docs, manifest.Config)
	if err != nil {
		return nil, fmt.Errorf("its configuration: %w", err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("its configuration: %w", err)
	}
	return stack(ctx, manifest.Layers, config.RootFS.DiffIDs)
}

// stack joins layers and their unpacked digests.
func stack(ctx context.Context, descs []ocispec.Descriptor, diffs []digest.Digest) ([]layer, error) {
	if len(descs) != len(diffs) {
		return nil, fmt.Errorf("its manifest has %d layers and its configuration %d", len(descs), len(diffs))
	}
	if len(descs) == 0 {
		return nil, errors.New("the image has no files")
	}
	for _, d := range diffs {
		if err := d.Validate(); err != nil {
			return nil, fmt.Errorf("its configuration: layer %q: %w", d, err)
		}
	}
	chains := identity.ChainIDs(append([]digest.Digest(nil), diffs...))
	var stacked []layer
	for i, desc := range descs {
		kind, err := images.DiffCompression(ctx, desc.MediaType)
		if _, known := growth[kind]; err != nil || !known || !images.IsLayerType(desc.MediaType) || images.IsNonDistributable(desc.MediaType) {
			return nil, fmt.Errorf("its layer %d is %q, which cannot be unpacked: build the image with tar, tar+gzip or tar+zstd layers", i+1, desc.MediaType)
		}
		if desc.Size <= 0 || desc.Digest.Validate() != nil {
			return nil, fmt.Errorf("its layer %d: digest %q of %d bytes", i+1, desc.Digest, desc.Size)
		}
		stacked = append(stacked, layer{desc, chains[i], kind})
	}
	return stacked, nil
}

// present is how many bytes of a layer have come already.
func (s *Store) present(ctx context.Context, desc ocispec.Descriptor) (int64, error) {
	store := s.Client.ContentStore()
	info, err := store.Info(ctx, desc.Digest)
	if err == nil {
		return info.Size, nil
	}
	if !errdefs.IsNotFound(err) {
		return 0, fmt.Errorf("look up layer %s: %w", desc.Digest, err)
	}
	status, err := store.Status(ctx, remotes.MakeRefKey(ctx, desc))
	if err != nil {
		return 0, nil // none has begun, or it cannot be gone on with
	}
	return status.Offset, nil
}

// documents are an image's index, manifest and configuration. It is a
// content.Provider of those, and asks the registry for what is not here.
type documents struct {
	*upstream
	read map[digest.Digest][]byte // what the registry gave
}

// ReaderAt is content.Provider's.
func (d *documents) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if desc.Size < 0 || desc.Size > maxDocument {
		return nil, fmt.Errorf("document %s: %d bytes; at most %d are read", desc.Digest, desc.Size, maxDocument)
	}
	if b, ok := d.read[desc.Digest]; ok {
		return document{bytes.NewReader(b)}, nil
	}
	ra, err := d.store.ReaderAt(ctx, desc)
	if err == nil && ra.Size() <= maxDocument {
		return ra, nil
	}
	if err == nil {
		ra.Close()
		return nil, fmt.Errorf("document %s: %d bytes; at most %d are read", desc.Digest, ra.Size(), maxDocument)
	}
	if !errdefs.IsNotFound(err) {
		return nil, err
	}
	b, err := d.ask(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("ask for document %s: %w", desc.Digest, err)
	}
	d.read[desc.Digest] = b
	return document{bytes.NewReader(b)}, nil
}

// ask brings a document from the registry.
func (d *documents) ask(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if len(d.read) == maxDocuments {
		return nil, fmt.Errorf("the image has more than %d documents", maxDocuments)
	}
	if err := desc.Digest.Validate(); err != nil {
		return nil, err
	}
	fetcher, err := d.Fetcher(ctx, string(d.image))
	if err != nil {
		return nil, err
	}
	body, err := fetcher.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, desc.Size+1))
	if err != nil {
		return nil, err
	}
	if desc.Digest.Algorithm().FromBytes(b) != desc.Digest {
		return nil, errors.New("it does not have its digest")
	}
	return b, nil
}

// document is a content.ReaderAt.
type document struct{ *bytes.Reader }

func (document) Close() error { return nil }
