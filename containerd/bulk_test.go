package containerd_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/schema"
)

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

// pushing is held by who pushes: the registry mixes up what two push at a time.
var pushing sync.Mutex

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
	pushing.Lock()
	defer pushing.Unlock()
	if err := remote.Write(ref, img); err != nil {
		s.t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		s.t.Fatal(err)
	}
	return schema.Image(s.registry + "/" + repo + "@" + digest.String())
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
