package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/tidemark-edge/tidemark/internal/boot"
	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// Of one image, this many layers are downloaded at once, and, where containerd
// can do that (from 2.4 on), unpacked at once.
const (
	parallelLayers = 3
	parallelUnpack = 2
)

// Labels of our leases: one for each image that is being pulled, and one while
// garbage is collected.
const (
	labelLeaseCollects = "tidemark.io/collects" // no image, but garbage
	labelLeaseImage    = "tidemark.io/pulls"    // the image
	labelLeaseBoot     = "tidemark.io/boot"     // the boot during which the lease was made
)

// Pull brings a verified image to the disk, unpacked and synced. The registry
// is not asked when it is there already. There is no deadline but ctx's: what
// has come before an interruption is kept and not asked for again, also after a
// reboot. A disk that is full is told by syscall.ENOSPC in the error's chain.
func (s *Store) Pull(ctx context.Context, proof signing.Verified) error {
	image := proof.Image()
	if image == "" {
		return errors.New("pull: no proof that the image is signed")
	}
	unlock, err := s.busy.Lock(ctx, string(image))
	if err != nil {
		return fmt.Errorf("pull %s: %w", image, err)
	}
	defer unlock()
	err = s.pull(ctx, image)
	if schema.IsNoRoom(err) {
		return fmt.Errorf("pull %s: %w: %w", image, syscall.ENOSPC, err)
	}
	if err != nil {
		return fmt.Errorf("pull %s: %w", image, err)
	}
	return nil
}

func (s *Store) pull(ctx context.Context, image schema.Image) error {
	if _, err := s.Rootfs(ctx, image); !errors.Is(err, errNotReady) {
		return err // nil: it is ready
	}
	if err := s.purgeUnready(ctx); err != nil {
		return fmt.Errorf("purge what an earlier boot left: %w", err)
	}
	lease, err := s.lease(ctx, image)
	if err != nil {
		return err
	}
	failpoint.Reach("containerd.leased")
	settled := s.settle(ctx)
	err = s.fetch(leases.WithLease(ctx, lease.ID), image)
	settled()
	if err != nil {
		return err
	}
	failpoint.Reach("containerd.fetched")
	if err := s.makeReady(leases.WithLease(ctx, lease.ID), image); err != nil {
		return err
	}
	failpoint.Reach("containerd.marked")
	// The image record holds everything now. A lease that cannot be deleted
	// holds no more than it should until Prune finds it.
	_ = s.Client.LeasesService().Delete(ctx, lease)
	return nil
}

// lease returns the lease under which image is pulled during this boot, which
// may be that of an earlier attempt. It does not expire: client.Pull's own would
// after a day.
func (s *Store) lease(ctx context.Context, image schema.Image) (leases.Lease, error) {
	now, err := boot.ID()
	if err != nil {
		return leases.Lease{}, err
	}
	id := "tidemark-pull-" + strings.TrimPrefix(image.Digest(), "sha256:") + "-" + now
	lease, err := s.Client.LeasesService().Create(ctx, leases.WithID(id),
		leases.WithLabels(map[string]string{labelLeaseImage: string(image), labelLeaseBoot: now}))
	if errdefs.IsAlreadyExists(err) {
		return leases.Lease{ID: id}, nil
	}
	if err != nil {
		return leases.Lease{}, fmt.Errorf("make a lease: %w", err)
	}
	return lease, nil
}

// settleEach is how much of a download a power cut may cost.
const settleEach = 10 * time.Second

// settle syncs what comes from time to time, until the function that it returns
// is called. containerd syncs a layer when it is complete, which over a slow link
// may be never between two power cuts.
func (s *Store) settle(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause(ctx, settleEach) == nil {
			_ = s.sync(ctx) // the sync that counts is the one before the marker
		}
	}()
	return func() { cancel(); <-done }
}

// fetch downloads and unpacks. What came before and cannot be gone on with is
// thrown away, once, or no later attempt could succeed.
func (s *Store) fetch(ctx context.Context, image schema.Image) error {
	up, err := s.upstream(image)
	if err != nil {
		return err
	}
	defer up.close()
	seen := &ingests{refused: map[digest.Digest]bool{}}
	up.refuse = seen.refuse
	err = s.download(ctx, up, seen)
	if isSpoilt(err) {
		seen.abort(ctx, s.Client.ContentStore())
		if err = s.download(ctx, up, seen); isSpoilt(err) {
			seen.abort(ctx, s.Client.ContentStore())
		}
	}
	if isForgotten(err) {
		if err = s.collect(ctx); err == nil {
			err = s.download(ctx, up, seen)
		}
	}
	if errdefs.IsNotFound(err) && !isForgotten(err) {
		return fmt.Errorf("the registry does not have it for this platform: %w", err)
	}
	return err
}

// download makes one attempt, which outlives cuts of the link.
//
// The image's record refers to its documents and its snapshots and not to its
// compressed layers, which containerd therefore deletes once the lease is gone:
// they are a third of what an image takes, and nothing reads them again. An
// image that shares layers with it finds them as snapshots, and does not fetch
// them.
func (s *Store) download(ctx context.Context, up *upstream, seen *ingests) error {
	_, err := s.Client.Pull(ctx, string(up.image),
		client.WithResolver(up),
		client.WithPullUnpack,
		client.WithPullSnapshotter(s.Snapshotter),
		client.WithUnpackOpts([]client.UnpackOpt{client.WithUnpackLimiter(semaphore.NewWeighted(parallelUnpack))}),
		client.WithDownloadLimiter(semaphore.NewWeighted(parallelLayers)),
		client.WithChildLabelMap(images.ChildGCLabelsFilterLayers),
		client.WithImageHandler(images.HandlerFunc(seen.note)))
	return err
}

// isSpoilt reports whether a download failed because of what came earlier: it
// does not have its digest, or the registry cannot go on in the middle.
func isSpoilt(err error) bool { return isUnresumable(err) || errdefs.IsFailedPrecondition(err) }

// isForgotten reports whether snapshots are in the way that containerd's database
// does not know: of one that was lost, and begun anew.
func isForgotten(err error) bool {
	return errdefs.IsNotFound(err) && strings.Contains(err.Error(), "parent snapshot")
}

// ingests are what a pull downloads, or tries to.
type ingests struct {
	mu      sync.Mutex
	descs   []ocispec.Descriptor
	refused map[digest.Digest]bool // by the registry, in the middle
}

func (i *ingests) note(_ context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.descs = append(i.descs, desc)
	return nil, nil
}

func (i *ingests) refuse(desc ocispec.Descriptor) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refused[desc.Digest] = true
}

// abort discards what cannot become complete: what has all its bytes, and yet
// is not taken, and what the registry does not go on with.
func (i *ingests) abort(ctx context.Context, store content.IngestManager) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, desc := range i.descs {
		ref := remotes.MakeRefKey(ctx, desc)
		status, err := store.Status(ctx, ref)
		if errdefs.IsNotFound(err) {
			continue // it is complete, or has not begun
		}
		if err != nil || i.refused[desc.Digest] || status.Offset >= desc.Size {
			_ = store.Abort(ctx, ref)
		}
	}
}
