package signing_test

import (
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/sync/errgroup"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

func newVerifier(t testing.TB, rules []schema.ImageRule, dir string) *signing.Verifier {
	t.Helper()
	v, err := signing.New(rules, nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// switchable is a registry that can be taken off the network.
func switchable(t *testing.T) (host string, off func()) {
	srv := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), quiet))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), srv.Close
}

// A device that boots without network verifies again what it accepted before.
func TestOfflineBootVerifiesFromEvidence(t *testing.T) {
	for format, sign := range map[string]func(*signingtest.Key, testing.TB, schema.Image){
		"sigstore-bundle":  (*signingtest.Key).Sign,
		"cosign-signature": (*signingtest.Key).SignClassic,
	} {
		t.Run(format, func(t *testing.T) {
			host, off := switchable(t)
			key, img, other, dir := signingtest.NewKey(t), push(t, host), push(t, host), t.TempDir()
			sign(key, t, img)
			sign(key, t, other)
			rules := []schema.ImageRule{key.Rule("team", host+"/**")}
			first, err := newVerifier(t, rules, dir).Verify(t.Context(), img)
			if err != nil {
				t.Fatal(err)
			}
			off()
			booted := newVerifier(t, rules, dir)
			for range 2 { // from the file, then from memory
				again, err := booted.Verify(t.Context(), img)
				if err != nil || again != first {
					t.Errorf("after the reboot: %+v, %v; before: %+v", again.Evidence(), err, first.Evidence())
				}
			}
			unreachable(t, verify(t, booted, other), "connection refused")
		})
	}
}

// Taking a key out of the policy takes effect on what it accepted before.
func TestKeyRemovedFromPolicy(t *testing.T) {
	host, off := switchable(t)
	old, current := signingtest.NewKey(t), signingtest.NewKey(t)
	img, dir := push(t, host), t.TempDir()
	old.Sign(t, img)
	if err := verify(t, newVerifier(t, []schema.ImageRule{old.Rule("team", "**")}, dir), img); err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, []schema.ImageRule{current.Rule("team", "**")}, dir)
	refused(t, verify(t, v, img), "stored on the device does not hold any more")
	current.Sign(t, img) // the registry is asked again
	if err := verify(t, v, img); err != nil {
		t.Error(err)
	}
	off()
	refusedOffline := newVerifier(t, []schema.ImageRule{signingtest.NewKey(t).Rule("team", "**")}, dir)
	unreachable(t, verify(t, refusedOffline, img), "does not hold any more")
}

func TestBrokenEvidenceIsSetAsideAndFetchedAgain(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty":        func([]byte) []byte { return nil },
		"truncated":    func(b []byte) []byte { return b[:len(b)/2] },
		"flipped":      func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"no checksum":  func(b []byte) []byte { return b[strings.IndexByte(string(b), '\n')+1:] },
		"not evidence": func([]byte) []byte { return []byte("hello") },
		"far too long": func(b []byte) []byte { return append(b, make([]byte, 8<<20)...) },
	} {
		t.Run(name, func(t *testing.T) {
			host, off := switchable(t)
			key, img, dir := signingtest.NewKey(t), push(t, host), t.TempDir()
			key.Sign(t, img)
			rules := []schema.ImageRule{key.Rule("team", "**")}
			if err := verify(t, newVerifier(t, rules, dir), img); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, strings.Replace(img.Digest(), ":", "-", 1)+".json")
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			spoil := func() {
				if err := os.WriteFile(file, damage(append([]byte(nil), content...)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			spoil()
			v := newVerifier(t, rules, dir)
			var told []error
			v.Broken = func(err error) { told = append(told, err) }
			for range 2 {
				if err := verify(t, v, img); err != nil {
					t.Fatal(err)
				}
			}
			aside, _ := filepath.Glob(file + ".broken-*")
			if len(told) != 1 || len(aside) != 1 || !strings.Contains(told[0].Error(), aside[0]) {
				t.Errorf("reported %v, set aside %v", told, aside)
			}
			off()
			if err := verify(t, newVerifier(t, rules, dir), img); err != nil {
				t.Errorf("fetched again, then offline: %v", err)
			}
			spoil()
			unreachable(t, verify(t, newVerifier(t, rules, dir), img), "set aside")
		})
	}
}

// Evidence is no verdict: moved to another image's name, it proves nothing.
func TestEvidenceOfAnotherImage(t *testing.T) {
	key, dir := signingtest.NewKey(t), t.TempDir()
	signingtest.Keep(t, key, dir, image(1))
	name := func(i schema.Image) string {
		return filepath.Join(dir, strings.Replace(i.Digest(), ":", "-", 1)+".json")
	}
	if err := os.Rename(name(image(1)), name(image(2))); err != nil {
		t.Fatal(err)
	}
	unreachable(t, verify(t, newVerifier(t, []schema.ImageRule{key.Rule("team", "**")}, dir), image(2)), "does not hold any more")
}

func TestPruneKeepsWhatIsNeeded(t *testing.T) {
	key, dir := signingtest.NewKey(t), t.TempDir()
	for n := range 3 {
		signingtest.Keep(t, key, dir, image(n))
	}
	if err := os.WriteFile(filepath.Join(dir, ".new-123"), nil, 0o600); err != nil { // of a write that a power cut ended
		t.Fatal(err)
	}
	v := newVerifier(t, []schema.ImageRule{key.Rule("team", "**")}, dir)
	if err := v.Prune([]schema.Image{image(1)}); err != nil {
		t.Fatal(err)
	}
	if err := verify(t, v, image(1)); err != nil {
		t.Error(err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// A proof in memory does not outlive its evidence.
func TestProofEndsWithItsEvidence(t *testing.T) {
	key, dir := signingtest.NewKey(t), t.TempDir()
	signingtest.Keep(t, key, dir, image(1))
	v := newVerifier(t, []schema.ImageRule{key.Rule("team", "**")}, dir)
	if err := verify(t, v, image(1)); err != nil {
		t.Fatal(err)
	}
	if err := v.Prune(nil); err != nil {
		t.Fatal(err)
	}
	if err := verify(t, v, image(1)); !errors.As(err, new(*signing.RegistryError)) {
		t.Errorf("without evidence: %v", err)
	}
}

// An image whose evidence cannot be kept would not start offline, so it is not
// accepted; and this is the device's fault, not the image's or the registry's.
func TestEvidenceThatCannotBeKept(t *testing.T) {
	host, _ := switchable(t)
	key, img, dir := signingtest.NewKey(t), push(t, host), filepath.Join(t.TempDir(), "evidence")
	key.Sign(t, img)
	v := newVerifier(t, []schema.ImageRule{key.Rule("team", "**")}, dir)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	err := verify(t, v, img)
	if err == nil || errors.As(err, new(*signing.RefusedError)) || errors.As(err, new(*signing.RegistryError)) || !strings.Contains(err.Error(), dir) {
		t.Errorf("error = %v", err)
	}
}

func TestVerifyConcurrently(t *testing.T) {
	host, _ := switchable(t)
	key, dir := signingtest.NewKey(t), t.TempDir()
	images := []schema.Image{push(t, host), push(t, host), push(t, host)}
	for _, img := range images {
		key.Sign(t, img)
	}
	v := newVerifier(t, []schema.ImageRule{key.Rule("team", "**")}, dir)
	var g errgroup.Group
	for n := range 24 {
		g.Go(func() error {
			if n%8 == 7 {
				return v.Prune(images[:1])
			}
			_, err := v.Verify(t.Context(), images[n%3])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
