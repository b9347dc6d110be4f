package store

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidemark-edge/tidemark/internal/boot"
	"github.com/tidemark-edge/tidemark/schema"
)

// purgeUnready, once, removes what of a former boot may not have reached the
// disk whole: every image that has no marker, with its snapshots. Of what a
// former boot had downloaded, what is whole stays, for a device whose power
// fails more often than its link brings an image would never have one.
//
// containerd 1.6 and 2 both sync a blob before they rename it to its digest.
// But 1.6 does not sync the directory, so the database can name a blob that is
// not there, which containerd would not fetch again; so blobs are read and
// compared with their digest. A download that has not ended is not looked at: it
// is compared with its digest when it ends, and thrown away then.
func (s *Store) purgeUnready(ctx context.Context) error {
	unlock, err := s.busy.Lock(ctx, "purge")
	if err != nil {
		return err
	}
	defer unlock()
	if s.purged {
		return nil
	}
	now, err := boot.ID()
	if err != nil {
		return err
	}
	held, err := s.Client.LeasesService().List(ctx)
	if err != nil {
		return err
	}
	var former []leases.Lease
	for _, lease := range held {
		image := schema.Image(lease.Labels[labelLeaseImage])
		if image == "" || lease.Labels[labelLeaseBoot] == now {
			continue
		}
		former = append(former, lease)
		if err := s.inherit(ctx, lease, image); err != nil {
			return err
		}
	}
	records, err := s.Client.ImageService().List(ctx)
	if err != nil {
		return err
	}
	for _, record := range records {
		if record.Labels[labelReady] != "" {
			continue
		}
		if err := s.Client.ImageService().Delete(ctx, record.Name); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	for _, lease := range former {
		if err := s.Client.LeasesService().Delete(ctx, lease); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	// What nothing holds is to be gone before a pull looks.
	if err := s.collect(ctx); err != nil {
		return err
	}
	s.purged = true
	return nil
}

// inherit takes what a former boot had downloaded of image into a lease of this
// one: not the snapshots, and not the documents, for a configuration holds its
// snapshots.
func (s *Store) inherit(ctx context.Context, former leases.Lease, image schema.Image) error {
	service, store := s.Client.LeasesService(), s.Client.ContentStore()
	resources, err := service.ListResources(ctx, former)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("download of %s: %w", image, err)
	}
	heir, err := s.lease(ctx, image)
	if err != nil {
		return err
	}
	for _, resource := range resources {
		switch resource.Type {
		case "ingests":
		case "content":
			info, err := store.Info(ctx, digest.Digest(resource.ID))
			if err == nil && isDocument(info) {
				continue
			}
			if err == nil {
				err = checkBlob(ctx, store, info)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if errdefs.IsUnavailable(err) {
				return err // containerd is not there: nothing is known of the blob
			}
			if err != nil {
				_ = store.Delete(ctx, digest.Digest(resource.ID))
				continue
			}
		default:
			continue
		}
		if err := service.AddResource(ctx, heir, resource); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("keep what came of %s: %w", image, err)
		}
	}
	return nil
}

// isDocument reports whether a blob refers to others: it is an index, a manifest
// or a configuration.
func isDocument(info content.Info) bool {
	for label := range info.Labels {
		if strings.HasPrefix(label, "containerd.io/gc.ref.") {
			return true
		}
	}
	return false
}

// checkBlob compares a blob with its digest.
func checkBlob(ctx context.Context, store content.Provider, info content.Info) error {
	if err := info.Digest.Validate(); err != nil {
		return err
	}
	blob, err := store.ReaderAt(ctx, ocispec.Descriptor{Digest: info.Digest})
	if err != nil {
		return err
	}
	defer blob.Close()
	verifier := info.Digest.Verifier()
	if _, err := io.Copy(verifier, content.NewReader(blob)); err != nil {
		return err
	}
	if !verifier.Verified() {
		return fmt.Errorf("blob %s: it does not have its digest", info.Digest)
	}
	return nil
}
