package containerd_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/tidemark-edge/tidemark/containerd"
	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// TestImages is about what comes from a registry that is a real one, and how it
// gets to the disk. Nothing is run.
func TestImages(t *testing.T) {
	t.Parallel()
	registry := harness.Registry(t)
	for _, version := range harness.ContainerdVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := &world{daemon: harness.Containerd(t, version), registry: registry}
			for _, s := range []struct {
				name string
				play func(*stage)
			}{
				{"iotedge#1593 a pull goes on where the link was cut", cutLink},
				{"iotedge#3069 the registry is not asked for what is on the disk", unasked},
				{"layers that images share come once", shared},
				{"a pull after a kill of the agent asks for what is missing", killedAgent},
				{"a pull after a kill of containerd asks for what is missing", killedDaemon},
				{"a layer takes away what is below it", whiteouts},
				{"room", room},
				{"a registry that is down is no lack of room", roomUnknown},
				{"prune keeps the download of an image that is kept", prunedDownload},
			} {
				t.Run(s.name, func(t *testing.T) { s.play(w.stage(t)) })
			}
		})
	}
}

// bulk is an image of layers that do not compress, one file in each.
type bulk struct {
	schema.Image
	size  int64             // of its layers, as they are in the registry
	layer []int64           // size of each
	files map[string][]byte // what is unpacked
}

// pushBulk pushes an image with a layer for each seed; the same seed and size
// give the same layer.
func (s *stage) pushBulk(repo string, size int, seeds ...uint64) bulk {
	s.t.Helper()
	b := bulk{files: map[string][]byte{}}
	img := empty.Image
	for _, seed := range seeds {
		file := fmt.Sprintf("noise-%d", seed)
		data := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(seed), byte(size), byte(size >> 8)}).Read(data)
		b.files[file] = data
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(size)})
		w.Write(data)
		w.Close()
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
		if err != nil {
			s.t.Fatal(err)
		}
		n, err := layer.Size()
		if err != nil {
			s.t.Fatal(err)
		}
		b.size, b.layer = b.size+n, append(b.layer, n)
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			s.t.Fatal(err)
		}
	}
	b.Image = s.publish(repo, img, v1.Config{Entrypoint: []string{"/" + repo}})
	return b
}

// whole compares what is unpacked with what was pushed.
func (s *stage) whole(b bulk) {
	s.t.Helper()
	raw := s.raw()
	record, err := raw.ImageService().Get(s.ctx, string(b.Image))
	if err != nil {
		s.t.Fatal(err)
	}
	snapshots := raw.SnapshotService("overlayfs")
	mounts, err := snapshots.View(s.ctx, "look", record.Labels["tidemark.io/chain"])
	if err != nil {
		s.t.Fatal(err)
	}
	defer snapshots.Remove(s.ctx, "look")
	dirs := []string{mounts[0].Source} // a bind mount, of one layer
	for _, option := range mounts[0].Options {
		if lower, ok := strings.CutPrefix(option, "lowerdir="); ok {
			dirs = strings.Split(lower, ":")
		}
	}
	for file, want := range b.files {
		var got []byte
		for _, dir := range dirs {
			if found, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				got = found
			}
		}
		if !bytes.Equal(got, want) {
			s.t.Errorf("%s: %d bytes, want these %d", file, len(got), len(want))
		}
	}
}

// through makes the image one that is reached by a proxy.
func (s *stage) through(b bulk) (bulk, *fault.Proxy) {
	p := fault.NewProxy(s.t, "127.0.0.1:0", s.registry)
	b.Image = via(p.Address, b.Image)
	return b, p
}

// pull pulls, or fails the test.
func (s *stage) pull(image schema.Image) {
	s.t.Helper()
	if err := s.Pull(s.ctx, proof(s.t, image)); err != nil {
		s.t.Fatal(err)
	}
}

// iotedge#1593: pulls restarted from zero, or died of a timeout. Here no
// connection lives longer than a fifth of a layer.
func cutLink(s *stage) {
	const size = 6 << 20
	b, proxy := s.through(s.pushBulk("cut", size, 1, 2, 3, 4, 5))
	proxy.CutEach(size / 5)
	s.pull(b.Image)
	if got := proxy.Down.Load(); got > b.size*105/100 {
		s.t.Errorf("fetched %d bytes of an image of %d", got, b.size)
	}
	s.whole(b)
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

// arrived is how much of the image's layers is in the content store.
func (s *stage) arrived() (n int64) {
	store := s.raw().ContentStore()
	statuses, err := store.ListStatuses(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, status := range statuses {
		n += status.Offset
	}
	store.Walk(s.ctx, func(info content.Info) error { n += info.Size; return nil })
	return n
}

// half waits until half of the image has come.
func (s *stage) half(b bulk) {
	s.t.Helper()
	harness.Eventually(s.t, func() error {
		if n := s.arrived(); n < b.size/2 {
			return fmt.Errorf("%d of %d bytes have come", n, b.size)
		}
		return nil
	})
}

// rest pulls what is missing and checks that no more is fetched than that.
func (s *stage) rest(b bulk, proxy *fault.Proxy) {
	s.t.Helper()
	missing := b.size - s.arrived()
	proxy.Restore()
	before := proxy.Down.Load()
	s.pull(b.Image)
	if got := proxy.Down.Load() - before; got > missing+b.size/20 || missing > b.size*2/3 {
		s.t.Errorf("fetched %d bytes, and %d of %d were missing", got, missing, b.size)
	}
	s.whole(b)
}

func killedAgent(s *stage) {
	b, proxy := s.through(s.pushBulk("killed", 12<<20, 30, 31, 32))
	proxy.Delay(3 * 1e6)
	agent := exec.Command(os.Args[0], "-test.run=^TestPullInAProcess$")
	agent.Env = append(os.Environ(), "PULL_IMAGE="+string(b.Image), "PULL_ADDRESS="+s.config.Address, "PULL_NAMESPACE="+s.config.Namespace)
	p := harness.Start(s.t, s.t.TempDir(), agent)
	s.half(b)
	p.Stop(os.Kill)
	collect(s)
	s.rest(b, proxy)
}

// TestPullInAProcess is the agent that another test kills.
func TestPullInAProcess(t *testing.T) {
	image := schema.Image(os.Getenv("PULL_IMAGE"))
	if image == "" {
		return
	}
	r, err := containerd.Open(schema.ContainerdConfig{Address: os.Getenv("PULL_ADDRESS"), Namespace: os.Getenv("PULL_NAMESPACE")})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Pull(t.Context(), proof(t, image)); err != nil {
		t.Fatal(err)
	}
}

func killedDaemon(s *stage) {
	b, proxy := s.through(s.pushBulk("daemon", 12<<20, 40, 41, 42))
	proxy.Delay(3 * 1e6)
	ended := make(chan error)
	go func() { ended <- s.Pull(s.ctx, proof(s.t, b.Image)) }()
	s.half(b)
	s.daemon.Kill()
	if err := <-ended; err == nil {
		s.t.Fatal("pulled without a daemon")
	}
	s.daemon.Start()
	s.answers()
	s.rest(b, proxy)
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

// layer has small files of these names.
func (s *stage) layer(files ...string) v1.Layer {
	s.t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, file := range files {
		w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(file))})
		io.WriteString(w, file)
	}
	w.Close()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		s.t.Fatal(err)
	}
	return layer
}

// publish pushes an image for this platform.
func (s *stage) publish(repo string, img v1.Image, wishes v1.Config) schema.Image {
	s.t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		s.t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config = "linux", runtime.GOARCH, wishes
	if img, err = mutate.ConfigFile(img, config); err != nil {
		s.t.Fatal(err)
	}
	ref, err := name.ParseReference(s.registry + "/" + repo + ":latest")
	if err != nil {
		s.t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		s.t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		s.t.Fatal(err)
	}
	return schema.Image(s.registry + "/" + repo + "@" + digest.String())
}

// answers waits until the Runtime has found its daemon again.
func (s *stage) answers() {
	s.t.Helper()
	harness.Eventually(s.t, func() error { _, err := s.Observe(s.ctx); return err })
}

func room(s *stage) {
	a, b := s.pushBulk("one", 3<<20, 50, 51), s.pushBulk("two", 3<<20, 50, 51, 52)
	f := newFront(s.t, s.registry)
	a.Image, b.Image = via(f.address, a.Image), via(f.address, b.Image)
	both := proofs(s.t, a.Image, b.Image)
	if err := s.Room(s.ctx, both); err != nil {
		s.t.Fatal(err)
	}
	if got, _ := blobs(f.questions()); got != 2 {
		s.t.Errorf("want the two configurations, asked %q", f.questions())
	}
	refused := func(want int64) {
		s.t.Helper()
		s.Reserve = 1 << 60
		defer func() { s.Reserve = 0 }()
		var no *schema.NoRoomError
		if err := s.Room(s.ctx, both); !errors.As(err, &no) {
			s.t.Fatalf("want no room, got %v", err)
		}
		if no.Download != want || no.Unpacked < want*2 || no.Unpacked > want*3 || no.Free <= 0 || no.Reserve != 1<<60 || no.Missing() <= 0 {
			s.t.Errorf("want %d to download: %v", want, no)
		}
	}
	refused(b.size)
	s.pull(a.Image)
	refused(b.layer[2])
	s.pull(b.Image)
	s.Reserve = 1 << 60
	f.set(nil, nil)
	if err := s.Room(s.ctx, both); err != nil || len(f.questions()) != 0 {
		s.t.Errorf("of ready images: %v, asked %q", err, f.questions())
	}
}

func roomUnknown(s *stage) {
	b, proxy := s.through(s.pushBulk("down", 1<<20, 60))
	proxy.Cut()
	var no *schema.NoRoomError
	if err := s.Room(s.ctx, proofs(s.t, b.Image)); err == nil || errors.As(err, &no) {
		s.t.Errorf("with the registry down: %v", err)
	}
}

// A download that was begun counts as present, and is not collected as long as
// somebody wants the image.
func prunedDownload(s *stage) {
	b, proxy := s.through(s.pushBulk("begun", 12<<20, 70, 71))
	proxy.Delay(3 * 1e6)
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan error)
	go func() { ended <- s.Pull(ctx, proof(s.t, b.Image)) }()
	s.half(b)
	cancel()
	if err := <-ended; err == nil {
		s.t.Fatal("pulled")
	}
	if err := s.Prune(s.ctx, []schema.Image{b.Image}); err != nil {
		s.t.Fatal(err)
	}
	collect(s)
	s.Reserve = 1 << 60
	var no *schema.NoRoomError
	if err := s.Room(s.ctx, proofs(s.t, b.Image)); !errors.As(err, &no) || no.Download > b.size*2/3 {
		s.t.Errorf("with half of %d bytes here: %v", b.size, err)
	}
	s.rest(b, proxy)
	if left := regexp.MustCompile(`tidemark-pull`).FindString(s.ctr("leases", "list", "-q")); left != "" {
		s.t.Errorf("a lease is left")
	}
}

// proofs are real proofs that images are signed.
func proofs(t testing.TB, images ...schema.Image) (all []signing.Verified) {
	for _, image := range images {
		all = append(all, proof(t, image))
	}
	return all
}
