package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/leases"
	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
)

// ballastBytes is the room that deleting needs: containerd writes to its
// database, which may have to grow, before it deletes a file.
const ballastBytes = 4 << 20

// ballastFile lies in containerd's root, on the filesystem of its database.
const ballastFile = "tidemark.ballast"

// shed gives the ballast up where the disk is full, so that something can be
// deleted there. Otherwise it does nothing.
func shed(at roots) error {
	room, err := free(filepath.Dir(at.database))
	if err != nil || room >= ballastBytes {
		return err
	}
	if err := os.Remove(at.ballast()); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("give up the ballast: %w", err)
	}
	return syncfs(filepath.Dir(at.ballast())) // before that, its blocks may not be had
}

// load takes the ballast on board, where it is not there and there is plenty of
// room. Without it only what needs no growth can be deleted from a full disk, so
// failing is no error.
func load(at roots) {
	if info, err := os.Lstat(at.ballast()); err == nil && info.Size() == ballastBytes {
		return
	}
	if room, err := free(filepath.Dir(at.database)); err != nil || room < 2*ballastBytes {
		return
	}
	f, err := os.OpenFile(at.ballast(), os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Fallocate(int(f.Fd()), 0, 0, ballastBytes) != nil {
		_ = os.Remove(at.ballast()) // a part of it is none
	}
}

// ballast is the path of the ballast.
func (at roots) ballast() string { return filepath.Join(at.daemon(), ballastFile) }

// daemon is containerd's root directory.
func (at roots) daemon() string { return filepath.Dir(filepath.Dir(at.database)) }

// collect runs containerd's garbage collection to its end, so that what is
// deleted is gone, and so that what hinders it is told. The lease of a
// collection that was cut short goes with the next Prune.
func (r *Runtime) collect(ctx context.Context) error {
	service := r.client.LeasesService()
	lease, err := service.Create(ctx, leases.WithRandomID(), leases.WithLabels(map[string]string{labelLeaseCollects: "true"}))
	if err == nil {
		failpoint.Reach("containerd.collect")
		err = service.Delete(ctx, lease, leases.SynchronousDelete)
	}
	if err != nil {
		return fmt.Errorf("collect what is deleted: %w", err)
	}
	return nil
}
