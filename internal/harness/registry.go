package harness

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/tidemark-edge/tidemark/schema"
)

const registryConfig = `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: %q}
`

// Registry starts a CNCF distribution 2.8 registry, which has no referrers API,
// and returns its host:port on the loopback, plain HTTP.
func Registry(t testing.TB) string {
	t.Helper()
	dir, addr := shortDir(t), FreeAddress(t)
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, registryConfig, filepath.Join(dir, "data"), addr), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(Tool(t, "docker-registry"), "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	p := Start(t, dir, cmd)
	t.Cleanup(func() { p.Stop(syscall.SIGTERM); p.printLog() })
	Eventually(t, func() error {
		if err := p.ended(); err != nil {
			return err
		}
		resp, err := http.Get("http://" + addr + "/v2/")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	return addr
}

// ReferrersRegistry starts a registry with the referrers API of OCI 1.1 in this
// process and returns its host:port.
func ReferrersRegistry(t testing.TB) string {
	t.Helper()
	srv := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// FreeAddress is a loopback host:port that nobody listens on at the moment.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// PushImage builds the Go program in the folder program statically, makes an
// image of one layer with it as the entry point /main, pushes it and returns
// its digest.
func PushImage(t testing.TB, registry, repo, program string) schema.Image {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "main")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, ".")
	build.Dir = program
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	return PushFiles(t, registry, repo, map[string][]byte{"main": content}, v1.Config{Entrypoint: []string{"/main"}})
}

// PushFiles makes an image of one layer with the files, all executable, pushes
// it and returns its digest.
func PushFiles(t testing.TB, registry, repo string, files map[string][]byte, config v1.Config) schema.Image {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for path, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		w.Write(content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	image, err = mutate.ConfigFile(image, platformConfig(t, image, config))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(registry + "/" + repo + ":latest")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := schema.ParseImage(registry + "/" + repo + "@" + digest.String())
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// platformConfig is image's configuration with config in it, for this machine.
func platformConfig(t testing.TB, image v1.Image, config v1.Config) *v1.ConfigFile {
	t.Helper()
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, config
	return file
}
