package signing_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

var quiet = registry.Logger(log.New(io.Discard, "", 0))

// hostile is a registry with a signed image, whose answers pass through twist
// once armed.
func hostile(t *testing.T, twist func(honest http.Handler) http.HandlerFunc) (v *signing.Verifier, img schema.Image, arm func()) {
	t.Helper()
	honest := registry.New(registry.WithReferrersSupport(true), quiet)
	twisted := twist(honest)
	var armed atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if armed.Load() {
			twisted(w, r)
			return
		}
		honest.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		srv.CloseClientConnections() // ends the handlers that are stuck
		srv.Close()
	})
	host := strings.TrimPrefix(srv.URL, "http://")
	key := signingtest.NewKey(t)
	img = push(t, host)
	key.SignClassic(t, img)
	return signingtest.Verifier(t, key, "**"), img, func() { armed.Store(true) }
}

// endless answers without end.
func endless(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	block := make([]byte, 1<<16)
	for r.Context().Err() == nil {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// stuck answers with nothing.
func stuck(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

func isManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
func isBlob(r *http.Request) bool     { return strings.Contains(r.URL.Path, "/blobs/") }

func when(is func(*http.Request) bool, twist http.HandlerFunc) func(http.Handler) http.HandlerFunc {
	return func(honest http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if is(r) {
				twist(w, r)
				return
			}
			honest.ServeHTTP(w, r)
		}
	}
}

// Nothing that a registry does gets an image accepted, hangs the device, or
// counts as a refusal of the image when it is the registry's fault.
func TestHostileRegistry(t *testing.T) {
	always := func(*http.Request) bool { return true }
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for name, tt := range map[string]struct {
		twist func(http.Handler) http.HandlerFunc
		want  string
	}{
		"endless from the start": {when(always, endless), "more than signatures can need"},
		"endless manifest":       {when(isManifest, endless), "more than signatures can need"},
		"endless blob":           {when(isBlob, endless), "more than signatures can need"},
		"stuck from the start":   {when(always, stuck), "deadline exceeded"},
		"stuck manifest":         {when(isManifest, stuck), "deadline exceeded"},
		"stuck blob":             {when(isBlob, stuck), "deadline exceeded"},
		"internal error":         {when(isManifest, status(500)), "500"},
		"throttled":              {when(isManifest, status(429)), "429"},
		"denied":                 {when(always, status(403)), "403"},
		"login without end":      {when(always, status(401)), "401"},
		"redirect in a circle": {when(isManifest, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}), "more than signatures can need"},
		"blob replaced":              {when(isBlob, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }), "sha256"},
		"connection cut in the blob": {when(isBlob, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, img, arm := hostile(t, tt.twist)
			if strings.HasPrefix(name, "stuck") {
				v.Timeout = 200 * time.Millisecond
			}
			arm()
			unreachable(t, verify(t, v, img), tt.want)
		})
	}
}

// The caller's own deadline and cancellation are kept, too.
func TestCancelledWhileRegistryIsStuck(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	v, img, arm := hostile(t, when(isManifest, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		stuck(w, r)
	}))
	arm()
	if _, err := v.Verify(ctx, img); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

// A registry that shows another manifest at each request gains nothing: what is
// verified is what was received.
func TestRegistryThatAlternates(t *testing.T) {
	var n atomic.Int64
	v, img, arm := hostile(t, func(honest http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".sig") && n.Add(1)%2 == 1 {
				io.WriteString(w, `{"schemaVersion":2,"layers":[]}`)
				return
			}
			honest.ServeHTTP(w, r)
		}
	})
	arm()
	refused(t, verify(t, v, img), "no signature")
	if err := verify(t, v, img); err != nil {
		t.Errorf("the true manifest: %v", err)
	}
}

// A registry that strips signatures makes an image unsigned, not accepted; what
// was accepted before stays so.
func TestRegistryThatStripsSignatures(t *testing.T) {
	strip := when(func(r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/manifests/sha256-") || strings.Contains(r.URL.Path, "/referrers/")
	}, http.NotFound)
	v, img, arm := hostile(t, strip)
	arm()
	refused(t, verify(t, v, img), "no signature")

	kept, img, arm := hostile(t, strip)
	if err := verify(t, kept, img); err != nil {
		t.Fatal(err)
	}
	arm()
	if err := verify(t, kept, img); err != nil {
		t.Errorf("accepted before: %v", err)
	}
}

// A registry whose referrers API fails still serves classic signatures.
func TestReferrersFailAndClassicHolds(t *testing.T) {
	v, img, arm := hostile(t, when(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/referrers/") },
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	arm()
	if err := verify(t, v, img); err != nil {
		t.Error(err)
	}
}

// An index with very many referrers costs a bounded number of requests.
func TestEndlessListOfReferrers(t *testing.T) {
	var requests atomic.Int64
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json"}
	for n := range 10000 {
		index.Manifests = append(index.Manifests, v1.Descriptor{ArtifactType: "application/vnd.dev.sigstore.bundle.v0.3+json", Digest: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%064x", n)}})
	}
	body, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	v, img, arm := hostile(t, func(honest http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			if !strings.Contains(r.URL.Path, "/referrers/") {
				honest.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			w.Write(body)
		}
	})
	arm()
	if err := verify(t, v, img); err != nil { // the classic signature is found behind them
		t.Error(err)
	}
	if n := requests.Load(); n > 256 {
		t.Errorf("%d requests", n)
	}
}

// Plain HTTP is for the loopback and for who asks for it; TLS may have its own
// authority; a password goes only where it belongs and into no error.
func TestHowRegistriesAreReached(t *testing.T) {
	const password = "hunter2"
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	honest := registry.New(registry.WithReferrersSupport(true), quiet)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "device" || pass != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		honest.ServeHTTP(w, r)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "https://")
	ca := file("ca.pem", certificatePEM(srv))
	key := signingtest.NewKey(t)
	ask := func(config schema.Registry) error {
		v, err := signing.New([]schema.ImageRule{key.Rule("team", "**")}, map[string]schema.Registry{host: config}, filepath.Join(dir, "evidence"))
		if err != nil {
			return err
		}
		err = verify(t, v, schema.Image(host+"/app@"+image(1).Digest()))
		if strings.Contains(err.Error(), password) {
			t.Errorf("the password is in %v", err)
		}
		return err
	}
	refused(t, ask(schema.Registry{CAFile: ca, PasswordFile: file("login", "device:"+password+"\n")}), "does not have this image")
	unreachable(t, ask(schema.Registry{CAFile: ca, PasswordFile: file("wrong", "device:"+password+"3")}), "401")
	unreachable(t, ask(schema.Registry{CAFile: ca}), "401")
	unreachable(t, ask(schema.Registry{}), "plainHttp: true")
	unreachable(t, ask(schema.Registry{CAFile: ca, PasswordFile: file("odd", password)}), "user:password")
	unreachable(t, ask(schema.Registry{CAFile: ca, PasswordFile: filepath.Join(dir, "none")}), "passwordFile")

	plain := httptest.NewServer(honest)
	t.Cleanup(plain.Close)
	host = strings.TrimPrefix(plain.URL, "http://")
	refused(t, ask(schema.Registry{}), "does not have this image")
	unreachable(t, ask(schema.Registry{CAFile: ca}), "plainHttp: false")
}

func certificatePEM(srv *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
}
