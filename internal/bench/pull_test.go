//go:build bench

package bench

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

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
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

const (
	pullLayers = 8
	pullBytes  = 500e6 // compressed, about
	pullRounds = 3
	cutPeriod  = 2 * time.Second
)

// large is the image that is pulled.
type large struct {
	schema.Image
	bytes int64 // of its layers, compressed
}

// measurePull pulls a large image with Tidemark and with containerd's own command
// line, in turn, and over a link that is cut again and again.
func measurePull(t *testing.T, f *table) {
	daemon, registry := harness.Containerd(t, "2"), harness.Registry(t)
	image := pushLarge(t, registry)
	r := openRuntime(t, daemon)
	pull := func(image schema.Image) time.Duration {
		settleDisk()
		p := proofOf(t, image)
		began := time.Now()
		if err := r.Images.Pull(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		if err := r.Images.Prune(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		return took
	}
	var ours, theirs []float64
	for range pullRounds {
		theirs = append(theirs, ms(ctrPull(t, daemon, image.Image)))
		ours = append(ours, ms(pull(image.Image)))
	}
	f.add("pull_500mb_vs_ctr_ratio", percentile(ours, 50)/percentile(theirs, 50), "ratio",
		"%d MB in %d layers: %.1f s with durability, ctr images pull without %.1f s, median of %d in alternation",
		image.bytes/1e6, pullLayers, percentile(ours, 50)/1e3, percentile(theirs, 50)/1e3, pullRounds)

	proxy := fault.NewProxy(t, "127.0.0.1:0", registry)
	proxy.Delay(5 * time.Millisecond) // for each 32 KiB of a connection: about 18 MB/s in all
	stop, cuts := make(chan struct{}), 0
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(cutPeriod)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				proxy.CutNow()
				cuts++
			case <-stop:
				return
			}
		}
	}()
	_, rest, _ := strings.Cut(string(image.Image), "/")
	took := pull(schema.Image(proxy.Address + "/" + rest))
	close(stop)
	<-ended
	f.add("pull_flaky_extra_bytes_percent", 100*(float64(proxy.Down.Load())/float64(image.bytes)-1), "%",
		"beyond the %d bytes of the layers, headers and documents included; link cut every %v, %d times in %.0f s", image.bytes, cutPeriod, cuts, took.Seconds())
}

// settleDisk leaves no writing to the next measurement.
func settleDisk() { syscall.Sync() }

func openRuntime(t *testing.T, daemon *harness.Daemon) *containerd.Runtime {
	r, err := containerd.Open(schema.ContainerdConfig{Address: daemon.Address, Namespace: "bench"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	r.StateDir = t.TempDir()
	return r
}

func proofOf(t *testing.T, image schema.Image) signing.Verified {
	proof, err := signingtest.Accept(t, image).Verify(context.Background(), image)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

// ctrPull times ctr images pull, and removes the image.
func ctrPull(t *testing.T, daemon *harness.Daemon, image schema.Image) time.Duration {
	ctr := func(args ...string) {
		args = append([]string{"--address", daemon.Address, "--namespace", "ctr", "images"}, args...)
		if out, err := exec.Command(harness.Tool(t, "ctr-2"), args...).CombinedOutput(); err != nil {
			t.Fatalf("ctr %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	settleDisk()
	began := time.Now()
	ctr("pull", "--plain-http", string(image))
	took := time.Since(began)
	ctr("remove", "--sync", string(image))
	return took
}

// pushLarge makes the image, layer by layer through files.
func pushLarge(t *testing.T, registry string) large {
	img, total := v1.Image(empty.Image), int64(0)
	for n := range pullLayers {
		file := filepath.Join(t.TempDir(), "layer.tar.gz")
		if err := writeLayer(file, n); err != nil {
			t.Fatal(err)
		}
		layer, err := tarball.LayerFromFile(file)
		if err != nil {
			t.Fatal(err)
		}
		size, err := layer.Size()
		if err != nil {
			t.Fatal(err)
		}
		total += size
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(registry + "/large:latest")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return large{schema.Image(registry + "/large@" + digest.String()), total}
}

// writeLayer writes files of 1 MB until the layer has its share of the bytes:
// every second one is noise, the others are words, which compress to a third.
func writeLayer(path string, n int) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	zip, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	w := tar.NewWriter(zip)
	noise := rand.NewChaCha8([32]byte{byte(n)})
	rng := rand.New(noise)
	data := make([]byte, 1e6)
	for i := 0; ; i++ {
		if noise.Read(data); i%2 == 1 {
			words(data, rng)
		}
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("data/%d/%d", n, i), Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		if written, err := out.Seek(0, io.SeekCurrent); err != nil || written >= pullBytes/pullLayers {
			break
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return zip.Close()
}

// words fills data with words of a small vocabulary.
func words(data []byte, rng *rand.Rand) {
	for i := 0; i < len(data); {
		i += copy(data[i:], fmt.Sprintf("%x ", 1<<30+rng.IntN(3000)*7919))
	}
}
