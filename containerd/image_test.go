package containerd_test

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// via is image as it is reached through another address.
func via(address string, image schema.Image) schema.Image {
	_, rest, _ := strings.Cut(string(image), "/")
	return schema.Image(address + "/" + rest)
}

// noise does not compress.
func noise(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return string(b)
}

// iotedge#3069: the registry was asked although the image is local.
func offline(s *stage) {
	f := newFront(s.t, s.registry)
	s.image = via(f.address, s.image)
	s.run(s.module("sensor", "wait"))
	if len(f.questions()) == 0 {
		s.t.Fatal("the front is not used")
	}
	f.set(nil, func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	s.open(s.StateDir)
	s.remove("sensor")
	s.run(s.module("sensor", "wait"))
	if asked := f.questions(); len(asked) != 0 {
		s.t.Errorf("the registry was asked %q", asked)
	}
}

// collection forces containerd's garbage collector while nothing runs.
func collection(s *stage) {
	p := proof(s.t, s.image)
	if err := s.Pull(s.ctx, p); err != nil {
		s.t.Fatal(err)
	}
	content := strings.Count(s.ctr("content", "list", "-q"), "sha256:")
	collect(s)
	// The compressed layer is not needed any more.
	if after := s.ctr("content", "list", "-q"); content < 2 || strings.Count(after, "sha256:") != 2 {
		s.t.Errorf("had %d pieces of content, and want manifest and configuration: %s", content, after)
	}
	if l := strings.TrimSpace(s.ctr("leases", "list", "-q")); l != "" {
		s.t.Errorf("leases are left: %s", l)
	}
	if err := s.Start(s.ctx, s.module("sensor", "wait"), "c", p); err != nil {
		s.t.Error(err)
	}
	s.remove("sensor")

	kept := s.push(s.t, "kept", nil, v1.Config{Entrypoint: []string{"/main"}})
	if err := s.Pull(s.ctx, proof(s.t, kept)); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Prune(s.ctx, []schema.Image{kept}); err != nil {
		s.t.Fatal(err)
	}
	collect(s)
	if list := s.ctr("images", "list", "-q"); strings.TrimSpace(list) != string(kept) {
		s.t.Errorf("after Prune: %s", list)
	}
	if err := s.Start(s.ctx, s.module("sensor", "wait"), "c", p); err == nil {
		s.t.Error("a pruned image was started")
	}
	s.image = kept
	c := s.run(s.module("sensor", "wait"))
	if err := s.Prune(s.ctx, nil); err != nil { // what a container was made from stays
		s.t.Fatal(err)
	}
	collect(s)
	if err := s.kill9(c.ID); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Restart(s.ctx, c.ID, 1); err != nil {
		s.t.Error(err)
	}
}

// collect runs the garbage collector to its end.
func collect(s *stage) {
	s.t.Helper()
	service := s.raw().LeasesService()
	lease, err := service.Create(s.ctx, leases.WithRandomID())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := service.Delete(s.ctx, lease, leases.SynchronousDelete); err != nil {
		s.t.Fatal(err)
	}
}

// home-assistant/operating-system#4994: after a power cut a committed snapshot
// holds empty files, and pulling again repairs nothing.
func powerCut(s *stage) {
	p := proof(s.t, s.image)
	if err := s.Pull(s.ctx, p); err != nil {
		s.t.Fatal(err)
	}
	raw := s.raw()
	record, err := raw.ImageService().Get(s.ctx, string(s.image))
	if err != nil {
		s.t.Fatal(err)
	}
	chain := record.Labels["tidemark.io/chain"]
	looking, done, err := raw.WithLease(s.ctx) // or what is looked at is collected
	if err != nil {
		s.t.Fatal(err)
	}
	mounts, err := raw.SnapshotService("overlayfs").View(looking, "look", chain)
	if err != nil {
		s.t.Fatal(err)
	}
	program := filepath.Join(mounts[0].Source, "main")
	if err := errors.Join(raw.SnapshotService("overlayfs").Remove(s.ctx, "look"), done(s.ctx)); err != nil {
		s.t.Fatal(err)
	}
	// As the power cut leaves it: no marker, a lease of the former boot, and the
	// file without its content.
	if err := os.Truncate(program, 0); err != nil {
		s.t.Fatal(err)
	}
	record.Labels = nil
	if _, err := raw.ImageService().Update(s.ctx, record, "labels"); err != nil {
		s.t.Fatal(err)
	}
	lease, err := raw.LeasesService().Create(s.ctx, leases.WithID("tidemark-pull-"+strings.TrimPrefix(s.image.Digest(), "sha256:")),
		leases.WithLabels(map[string]string{"tidemark.io/pulls": string(s.image), "tidemark.io/boot": "the former"}))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := raw.LeasesService().AddResource(s.ctx, lease, leases.Resource{ID: chain, Type: "snapshots/overlayfs"}); err != nil {
		s.t.Fatal(err)
	}

	s.open(s.StateDir)
	if err := s.Start(s.ctx, s.module("sensor", "wait"), "c", p); err == nil || !strings.Contains(err.Error(), "pull it first") {
		s.t.Fatalf("an unmarked image was started: %v", err)
	}
	if c := s.run(s.module("sensor", "wait")); c.State != schema.StateRunning {
		s.t.Errorf("%+v", c)
	}
	s.output("sensor", "waiting")
}

// iotedge#1593: pulls restarted from zero.
func resumed(s *stage) {
	const size, got = 12 << 20, 5 << 20
	registry := harness.Registry(s.t)
	f := newFront(s.t, registry)
	s.image = via(f.address, harness.PushFiles(s.t, registry, "large",
		map[string][]byte{"main": s.probe, "noise": []byte(noise(size))}, v1.Config{Entrypoint: []string{"/main"}}))
	ctx, cancel := context.WithCancel(s.ctx)
	f.set(func(r *http.Response, layer bool) {
		if layer {
			r.Body = &cut{r.Body, got}
		}
	}, func(w http.ResponseWriter, r *http.Request) bool {
		again := r.Header.Get("Range") != ""
		if again { // what had come was written
			w.WriteHeader(http.StatusServiceUnavailable)
			cancel() // and the agent ends
		}
		return again
	})
	p := proof(s.t, s.image)
	if err := s.Pull(ctx, p); err == nil {
		s.t.Fatal("pulled over a broken link")
	}
	f.set(nil, nil)
	collect(s)
	s.open(s.StateDir)
	if err := s.Pull(s.ctx, p); err != nil {
		s.t.Fatal(err)
	}
	var from int
	for _, q := range f.questions() {
		if i := strings.Index(q, "bytes="); i >= 0 {
			fmt.Sscanf(q[i:], "bytes=%d-", &from)
		}
	}
	if from < got/2 {
		s.t.Errorf("went on at byte %d of %d that had come: %q", from, got, f.questions())
	}
	s.run(s.module("sensor", "wait"))
}

// A registry that cannot go on in the middle is asked for the whole.
func notResumed(s *stage) {
	f := newFront(s.t, s.registry) // it answers 416
	s.image = via(f.address, s.push(s.t, "whole", map[string]string{"noise": noise(1 << 20)}, v1.Config{Entrypoint: []string{"/main"}}))
	f.set(func(r *http.Response, layer bool) {
		if layer {
			r.Body = &cut{r.Body, 300 << 10}
		}
	}, nil)
	p := proof(s.t, s.image)
	if err := s.Pull(s.ctx, p); err == nil {
		s.t.Fatal("pulled over a broken link")
	}
	f.set(nil, nil)
	if err := s.Pull(s.ctx, p); err != nil {
		s.t.Fatal(err)
	}
	s.run(s.module("sensor", "wait"))
}

// What comes wrong is not kept to fail for ever.
func corrupted(s *stage) {
	f := newFront(s.t, s.registry)
	s.image = via(f.address, s.push(s.t, "spoilt", map[string]string{"noise": noise(1 << 20)}, v1.Config{Entrypoint: []string{"/main"}}))
	f.set(func(r *http.Response, layer bool) {
		if layer {
			r.Body = &flip{ReadCloser: r.Body}
		}
	}, nil)
	p := proof(s.t, s.image)
	if err := s.Pull(s.ctx, p); err == nil || !strings.Contains(err.Error(), "digest") {
		s.t.Fatalf("pulled what does not have its digest: %v", err)
	}
	f.set(nil, nil)
	if err := s.Pull(s.ctx, p); err != nil {
		s.t.Fatalf("and never again: %v", err)
	}
	s.run(s.module("sensor", "wait"))
}

func privateRegistry(s *stage) {
	f := newFront(s.t, s.registry)
	f.set(nil, func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, ok := r.BasicAuth(); ok && user == "device" && password == "secret:word" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="fleet"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RequestURI, r.URL.Scheme, r.URL.Host = "", "http", f.address
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		buf := make([]byte, 64<<10)
		for n, err := resp.Body.Read(buf); n > 0 || err == nil; n, err = resp.Body.Read(buf) {
			w.Write(buf[:n])
		}
	}))
	s.t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "https://")
	s.image = via(address, s.image)
	p := proof(s.t, s.image)
	dir := s.t.TempDir()
	ca, password := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "password")
	os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600)
	os.WriteFile(password, []byte("device:secret:word\n"), 0o600)

	s.Registries = map[string]schema.Registry{address: {CAFile: ca}}
	if err := s.Pull(s.ctx, p); err == nil {
		s.t.Error("pulled without the password")
	} else if strings.Contains(err.Error(), "secret") {
		s.t.Errorf("the error tells: %v", err)
	}
	for file, content := range map[string]string{"no user": ":x", "no colon": "x", "large": strings.Repeat("x", 1<<20)} {
		bad := filepath.Join(dir, "bad")
		os.WriteFile(bad, []byte(content), 0o600)
		s.Registries = map[string]schema.Registry{address: {CAFile: ca, PasswordFile: bad}}
		if err := s.Pull(s.ctx, p); err == nil || !strings.Contains(err.Error(), bad) {
			s.t.Errorf("%s: %v", file, err)
		}
		s.Registries = map[string]schema.Registry{address: {CAFile: bad, PasswordFile: password}}
		if err := s.Pull(s.ctx, p); err == nil || !strings.Contains(err.Error(), "caFile") {
			s.t.Errorf("%s as CA: %v", file, err)
		}
	}
	s.Registries = map[string]schema.Registry{address: {CAFile: ca, PasswordFile: password}}
	if err := s.Pull(s.ctx, p); err != nil {
		s.t.Error(err)
	}
}

// The digest that is verified may be an index; what runs is this platform's
// part of it.
func index(s *stage) {
	ref := func(image schema.Image) name.Reference {
		r, err := name.ParseReference(string(image))
		if err != nil {
			s.t.Fatal(err)
		}
		return r
	}
	ours, err := remote.Image(ref(s.image))
	if err != nil {
		s.t.Fatal(err)
	}
	file, err := ours.ConfigFile()
	if err != nil {
		s.t.Fatal(err)
	}
	file = file.DeepCopy()
	platform := *file.Platform()
	file.Architecture = "s390x"
	theirs, err := mutate.ConfigFile(ours, file)
	if err != nil {
		s.t.Fatal(err)
	}
	push := func(platforms ...mutate.IndexAddendum) schema.Image {
		idx := mutate.AppendManifests(empty.Index, platforms...)
		if err := remote.WriteIndex(ref(schema.Image(s.registry+"/index:latest")), idx); err != nil {
			s.t.Fatal(err)
		}
		digest, err := idx.Digest()
		if err != nil {
			s.t.Fatal(err)
		}
		return schema.Image(s.registry + "/index@" + digest.String())
	}
	mine := mutate.IndexAddendum{Add: ours, Descriptor: v1.Descriptor{Platform: &platform}}
	other := mutate.IndexAddendum{Add: theirs, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}}
	s.image = push(other, mine)
	s.run(s.module("sensor", "wait"))
	s.output("sensor", "waiting")
	only := push(other)
	if err := s.Pull(s.ctx, proof(s.t, only)); err == nil || !strings.Contains(err.Error(), "platform") {
		s.t.Errorf("pulled for another platform: %v", err)
	}
}
