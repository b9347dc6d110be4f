package containerd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// onDisk is a stage whose containerd keeps all it keeps on that disk.
func onDisk(t *testing.T, version, registry string, disk *fault.Disk) *stage {
	t.Helper()
	w := &world{daemon: harness.Containerd(t, version), registry: registry}
	w.daemon.Kill()
	file := filepath.Join(w.daemon.Dir, "config.toml")
	config, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.Replace(string(config), filepath.Join(w.daemon.Dir, "root"), filepath.Join(disk.Dir, "root"), 1)
	if moved == string(config) {
		t.Fatalf("no root in %s", config)
	}
	if err := os.WriteFile(file, []byte(moved), 0o600); err != nil {
		t.Fatal(err)
	}
	w.daemon.Start()
	return w.stage(t)
}

// powerCycle cuts the power now, and boots again.
func (s *stage) powerCycle(disk *fault.Disk) {
	s.t.Helper()
	disk.PowerCut()
	s.daemon.Kill()
	disk.Remount()
	s.daemon.Start()
	s.open(s.StateDir)
	s.answers()
	s.age()
}

// age makes every lease of a pull one of a former boot.
func (s *stage) age() {
	s.t.Helper()
	service := s.raw().LeasesService()
	held, err := service.List(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, lease := range held {
		if lease.Labels["tidemark.io/pulls"] == "" {
			continue
		}
		resources, err := service.ListResources(s.ctx, lease)
		if err != nil {
			s.t.Fatal(err)
		}
		old, err := service.Create(s.ctx, leases.WithRandomID(), leases.WithLabels(map[string]string{
			"tidemark.io/pulls": lease.Labels["tidemark.io/pulls"], "tidemark.io/boot": "the former",
		}))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, resource := range resources {
			if err := service.AddResource(s.ctx, old, resource); err != nil {
				s.t.Logf("lease: %v", err) // its snapshot may never have been made
			}
		}
		if err := service.Delete(s.ctx, lease); err != nil {
			s.t.Fatal(err)
		}
	}
}

// eachStore runs test for both lines of containerd on every filesystem.
func eachStore(t *testing.T, sizeMB int64, test func(s *stage, disk *fault.Disk)) {
	registry := harness.Registry(t)
	for _, version := range harness.ContainerdVersions {
		for _, fs := range fault.Filesystems {
			t.Run(version+" "+fs, func(t *testing.T) {
				t.Parallel()
				disk := fault.NewDisk(t, fs, sizeMB)
				test(onDisk(t, version, registry, disk), disk)
			})
		}
	}
}

// After a power cut during or after an update, images had empty files, and
// pulling them again did not mend it.
func TestHomeAssistantOS4994PowerCutLeavesNoEmptyFiles(t *testing.T) {
	t.Parallel()
	eachStore(t, 400, func(s *stage, disk *fault.Disk) {
		// Cut as soon as it is pulled: what counts as ready is whole.
		ready := s.pushBulk("ready", 2<<20, 80, 81)
		s.pull(ready.Image)
		s.powerCycle(disk)
		if err := s.Room(s.ctx, proofs(s.t, ready.Image)); err != nil {
			s.t.Error(err)
		}
		s.whole(ready)

		// Cut as soon as it is unpacked and not yet synced, which is what a pull of
		// containerd's own leaves.
		b, proxy := s.through(s.pushBulk("unsynced", 2<<20, 80, 82, 83, 84))
		ctx := leases.WithLease(s.ctx, s.pullLease(b.Image))
		if _, err := s.raw().Pull(ctx, string(b.Image), client.WithPullUnpack, client.WithPullSnapshotter("overlayfs")); err != nil {
			s.t.Fatal(err)
		}
		s.powerCycle(disk)
		s.t.Logf("after a pull that was not synced: %s", s.damage(b))
		before := proxy.Down.Load()
		s.pull(b.Image)
		s.whole(b)
		if got := proxy.Down.Load() - before; got > b.size/20 {
			s.t.Errorf("fetched %d bytes of %d again; the layers were whole", got, b.size)
		}

		// Cut in the middle: what had come and is whole is not fetched again.
		m, proxy := s.through(s.pushBulk("middle", 4<<20, 85, 86, 87, 88, 89, 90))
		proxy.Delay(2 * time.Millisecond)
		ended := make(chan error)
		go func() { ended <- s.Pull(s.ctx, proof(s.t, m.Image)) }()
		s.half(m)
		disk.PowerCut()
		s.daemon.Kill()
		<-ended
		disk.Remount()
		s.daemon.Start()
		s.open(s.StateDir)
		s.answers()
		s.age()
		proxy.Restore()
		before = proxy.Down.Load()
		s.pull(m.Image)
		s.whole(m)
		if got := proxy.Down.Load() - before; got > m.size*105/100 {
			s.t.Errorf("fetched %d bytes of an image of %d", got, m.size)
		}
		s.whole(ready)
	})
}

// pullLease makes a lease as a Pull does.
func (s *stage) pullLease(image schema.Image) string {
	s.t.Helper()
	lease, err := s.raw().LeasesService().Create(s.ctx, leases.WithRandomID(),
		leases.WithLabels(map[string]string{"tidemark.io/pulls": string(image), "tidemark.io/boot": "the former"}))
	if err != nil {
		s.t.Fatal(err)
	}
	return lease.ID
}

// damage says what became of the image's files as they are unpacked.
func (s *stage) damage(b bulk) string {
	whole, empty, missing := 0, 0, 0
	for file := range b.files {
		found, _ := filepath.Glob(filepath.Join(s.snapshotRoot(), "*", "fs", file))
		if len(found) == 0 {
			missing++
			continue
		}
		content, _ := os.ReadFile(found[0])
		if len(content) == len(b.files[file]) {
			whole++
		} else {
			empty++
		}
	}
	return fmt.Sprintf("%d files are whole, %d are not, %d are missing", whole, empty, missing)
}

// snapshotRoot is where overlayfs keeps the layers.
func (s *stage) snapshotRoot() string {
	response, err := s.raw().IntrospectionService().Plugins(context.Background(), "type==io.containerd.snapshotter.v1,id==overlayfs")
	if err != nil || len(response.Plugins) == 0 {
		s.t.Fatalf("where are snapshots: %v", err)
	}
	return filepath.Join(response.Plugins[0].Exports["root"], "snapshots")
}
