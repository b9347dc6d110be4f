package containerd_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// A full disk bricked agent and engine (balena-supervisor#674): nothing could be
// deleted, for deleting needs room too.
func TestBalenaSupervisor674AFullDiskIsPruned(t *testing.T) {
	t.Parallel()
	eachStore(t, 400, func(s *stage, disk *fault.Disk) {
		old, kept := s.pushBulk("old", 8<<20, 100, 101), s.pushBulk("kept", 2<<20, 102)
		s.pull(old.Image)
		s.pull(kept.Image)
		collect(s) // compressed layers are gone
		disk.Fill(0)
		next := s.pushBulk("next", 2<<20, 103, 104)
		if err := s.Pull(s.ctx, proof(s.t, next.Image)); !errors.Is(err, syscall.ENOSPC) {
			s.t.Errorf("pulled onto a full disk: %v", err)
		}
		disk.Fill(0)
		s.crowd()
		disk.Fill(0)
		if err := s.Prune(s.ctx, []schema.Image{kept.Image}); err != nil {
			s.t.Fatalf("prune: %v", err)
		}
		// XFS gives the room of deleted files back a little later. The ballast is
		// taken in by who next finds room for it.
		harness.Eventually(s.t, func() error {
			if free := disk.Available(); free < 11<<20 {
				return fmt.Errorf("after Prune %d bytes are free", free)
			}
			return nil
		})
		if err := s.Prune(s.ctx, []schema.Image{kept.Image}); err != nil {
			s.t.Fatalf("prune: %v", err)
		}
		if ballast, err := os.Stat(filepath.Join(disk.Dir, "root", "tidemark.ballast")); err != nil || ballast.Size() < 1<<20 {
			s.t.Errorf("the ballast is not there again: %v", err)
		}
		s.pull(next.Image)
		s.whole(next)
		s.whole(kept)
	})
}

// crowd takes every free page of containerd's database.
func (s *stage) crowd() {
	s.t.Helper()
	service := s.raw().LeasesService()
	for size := 3 << 10; size > 0; {
		_, err := service.Create(s.ctx, leases.WithRandomID(), leases.WithLabels(map[string]string{"x": strings.Repeat("x", size)}))
		if err != nil {
			size /= 2 // no room for it
		}
	}
}
