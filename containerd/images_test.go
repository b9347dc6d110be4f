package containerd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// TestImages is about what comes from a registry that is a real one, and how it
// gets to the disk: the tests of package store that need a daemon. Nothing is run.
func TestImages(t *testing.T) {
	t.Parallel()
	registry := harness.Registry(t)
	for _, version := range harness.ContainerdVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := &world{daemon: harness.Containerd(t, version), registry: registry}
			w.play(t, []scenario{
				{"iotedge#1593 a pull goes on where the link was cut", cutLink},
				{"layers that images share come once", shared},
				{"a pull after a kill of the agent asks for what is missing", killedAgent},
				{"a layer takes away what is below it", whiteouts},
				{"room", room},
				{"a registry that is down is no lack of room", roomUnknown},
				{"prune keeps the download of an image that is kept", prunedDownload},
			}, []scenario{
				{"iotedge#3069 the registry is not asked for what is on the disk", unasked},
				{"a pull after a kill of containerd asks for what is missing", killedDaemon},
			})
		})
	}
}

// pull pulls, or fails the test.
func (s *stage) pull(image schema.Image) {
	s.t.Helper()
	if err := s.Pull(s.ctx, proof(s.t, image)); err != nil {
		s.t.Fatal(err)
	}
}

// questions count what a registry was asked, but for authentication.
func blobs(asked []string) (blobs, manifests int) {
	for _, q := range asked {
		switch {
		case strings.Contains(q, "/blobs/"):
			blobs++
		case strings.Contains(q, "/manifests/"):
			manifests++
		}
	}
	return blobs, manifests
}

// iotedge#3069: the registry was asked although the image is local.
func unasked(s *stage) {
	b := s.pushBulk("unasked", 1<<20, 10)
	f := newFront(s.t, s.registry)
	b.Image = via(f.address, b.Image)
	s.pull(b.Image)
	f.set(nil, nil)
	s.daemon.Restart()
	s.answers()
	for range 2 {
		if err := s.Room(s.ctx, proofs(s.t, b.Image)); err != nil {
			s.t.Error(err)
		}
		s.pull(b.Image)
		s.open(s.StateDir)
	}
	if asked := f.questions(); len(asked) != 0 {
		s.t.Errorf("the registry was asked %q", asked)
	}
}

func shared(s *stage) {
	first, second := s.pushBulk("first", 2<<20, 20, 21), s.pushBulk("second", 2<<20, 20, 21, 22)
	f := newFront(s.t, s.registry)
	first.Image, second.Image = via(f.address, first.Image), via(f.address, second.Image)
	s.pull(first.Image)
	collect(s) // its compressed layers are gone
	f.set(nil, nil)
	s.pull(second.Image)
	if got, _ := blobs(f.questions()); got != 2 {
		s.t.Errorf("want one configuration and one layer, asked %q", f.questions())
	}
	s.whole(second)
	if err := s.Prune(s.ctx, []schema.Image{second.Image}); err != nil {
		s.t.Fatal(err)
	}
	collect(s)
	s.whole(second)
}

// Layers may be unpacked side by side, and are one on the other all the same.
func whiteouts(s *stage) {
	img, err := mutate.AppendLayers(empty.Image,
		s.layer("a", "b", "dir/x", "dir/sub/y", "gone/z"),
		s.layer(".wh.a", "dir/.wh..wh..opq", "dir/new", ".wh.gone"),
		s.layer("c", "gone", ".wh.b"))
	if err != nil {
		s.t.Fatal(err)
	}
	image := s.publish("whiteouts", img, v1.Config{})
	s.pull(image)
	record, err := s.raw().ImageService().Get(s.ctx, string(image))
	if err != nil {
		s.t.Fatal(err)
	}
	snapshots := s.raw().SnapshotService("overlayfs")
	mounts, err := snapshots.View(s.ctx, "look", record.Labels["tidemark.io/chain"])
	if err != nil {
		s.t.Fatal(err)
	}
	defer snapshots.Remove(s.ctx, "look")
	var files []string
	err = mount.WithTempMount(s.ctx, mounts, func(root string) error {
		return filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				files = append(files, strings.TrimPrefix(path, root+"/"))
			}
			return err
		})
	})
	if got := strings.Join(files, " "); err != nil || got != "c dir/new gone" {
		s.t.Errorf("unpacked %q, %v", got, err)
	}
}

// answers waits until the Runtime has found its daemon again.
func (s *stage) answers() {
	s.t.Helper()
	harness.Eventually(s.t, func() error { _, err := s.Observe(s.ctx); return err })
}
