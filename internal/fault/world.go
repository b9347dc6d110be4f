package fault

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

// World is what devices reach over their link: a registry with signed images, one
// that nobody signed, and the means to serve Git. It may serve several devices.
type World struct {
	Images   []schema.Image // signed, all different; the last one is the largest
	Unsigned schema.Image   // in the same registry, signed by nobody

	registry string // host:port, for the test
	key      *signingtest.Key
	making   sync.Mutex
	sender   schema.Image // see Sender
}

// The names under which a device finds the world, whatever addresses its link has.
const (
	registryHost = "registry.test:15000"
	gitHost      = "git.test:18080"
	hubHost      = "hub.test:17422"
)

// NewWorld pushes and signs a few images.
func NewWorld(t testing.TB) *World {
	t.Helper()
	w := &World{registry: harness.Registry(t), key: signingtest.NewKey(t)}
	program, err := os.ReadFile(program(t, "module"))
	if err != nil {
		t.Fatal(err)
	}
	for i, kilobytes := range []int{64, 256, 512, 1024, 2048, 8192} {
		image := w.push(t, fmt.Sprintf("image%d", i), program, kilobytes<<10)
		w.key.Sign(t, image)
		w.Images = append(w.Images, abroad(image))
	}
	w.Unsigned = abroad(w.push(t, "unsigned", program, 32<<10))
	return w
}

// Sender is the image, signed, of the module that sends messages.
func (w *World) Sender(t testing.TB) schema.Image {
	t.Helper()
	w.making.Lock()
	defer w.making.Unlock()
	if w.sender == "" {
		program, err := os.ReadFile(program(t, "sender"))
		if err != nil {
			t.Fatal(err)
		}
		image := w.push(t, "sender", program, 16<<10)
		w.key.Sign(t, image)
		w.sender = abroad(image)
	}
	return w.sender
}

// push makes an image with the module and content that it can check.
func (w *World) push(t testing.TB, repo string, program []byte, size int) schema.Image {
	t.Helper()
	content := make([]byte, sha256.Size+size)
	rand.NewChaCha8(sha256.Sum256([]byte(repo))).Read(content[sha256.Size:])
	sum := sha256.Sum256(content[sha256.Size:])
	copy(content, sum[:])
	return harness.PushFiles(t, w.registry, repo, map[string][]byte{"main": program, "content": content}, v1.Config{Entrypoint: []string{"/main"}})
}

// abroad is the image as a device names it.
func abroad(image schema.Image) schema.Image {
	_, path, _ := strings.Cut(string(image), "/")
	return schema.Image(registryHost + "/" + path)
}

// serveGit serves a repository by HTTP and returns the host:port.
func serveGit(t testing.TB, g *harness.Git) string {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(&cgi.Handler{
		Path: git, Args: []string{"http-backend"},
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(g.Dir), "GIT_HTTP_EXPORT_ALL=1",
			"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1"},
		Stderr: io.Discard, Logger: log.New(io.Discard, "", 0),
	})
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.SetKeepAlivesEnabled(true)
	server.Start()
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}
