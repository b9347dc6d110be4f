package signing_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// registries are the two kinds there are: bundles are found by the fallback tag
// in the one, and by the referrers API in the other.
var registries = map[string]func(testing.TB) string{
	"distribution-2.8": harness.Registry,
	"referrers-api":    harness.ReferrersRegistry,
}

// push makes an image that is different each time.
func push(t testing.TB, registry string) schema.Image {
	t.Helper()
	content := fmt.Appendf(nil, "%s %s", t.Name(), t.TempDir())
	return harness.PushFiles(t, registry, "team/app", map[string][]byte{"main": content}, v1.Config{Entrypoint: []string{"/main"}})
}

// cosign runs the real command line in dir.
func cosign(t testing.TB, tool, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(harness.Tool(t, tool), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=", "HOME="+dir, "TUF_ROOT="+dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustCosign(t testing.TB, tool, dir string, args ...string) {
	t.Helper()
	if out, err := cosign(t, tool, dir, args...); err != nil {
		t.Fatalf("%s %v: %v\n%s", tool, args, err, out)
	}
}

// cosignKey makes a key pair with the real command line, and returns its folder.
func cosignKey(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	mustCosign(t, "cosign-v3", dir, "generate-key-pair")
	mustCosign(t, "cosign-v3", dir, "signing-config", "create", "--out", "nothing-online.json")
	return dir
}

// cosignWays are the ways in which the real command lines sign.
var cosignWays = []struct {
	name, tool, format string
	args               []string
}{
	{"v2", "cosign-v2", "cosign-signature", []string{"--tlog-upload=false"}},
	{"v3-bundle", "cosign-v3", "sigstore-bundle", []string{"--signing-config=nothing-online.json"}},
	{"v3-classic", "cosign-v3", "cosign-signature", []string{"--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false"}},
}

func policy(t testing.TB, match string, keys ...string) *signing.Verifier {
	t.Helper()
	v, err := signing.New([]schema.ImageRule{{Name: "team", Match: match, Keys: keys}}, nil, filepath.Join(t.TempDir(), "evidence"))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func refused(t testing.TB, err error, want string) {
	t.Helper()
	var r *signing.RefusedError
	if !errors.As(err, &r) || !strings.Contains(err.Error(), want) {
		t.Errorf("error = %v (%T), want a *RefusedError with %q", err, err, want)
	}
}

func unreachable(t testing.TB, err error, want string) {
	t.Helper()
	var r *signing.RegistryError
	if !errors.As(err, &r) || !strings.Contains(err.Error(), want) {
		t.Errorf("error = %v (%T), want a *RegistryError with %q", err, err, want)
	}
}

func TestSignedByTheRealCosign(t *testing.T) {
	ours, theirs := cosignKey(t), cosignKey(t)
	for kind, start := range registries {
		t.Run(kind, func(t *testing.T) {
			host := start(t)
			for _, way := range cosignWays {
				t.Run(way.name, func(t *testing.T) {
					t.Parallel()
					img := push(t, host)
					refused(t, verify(t, policy(t, host+"/**", ours+"/cosign.pub"), img), "has no signature")

					mustCosign(t, way.tool, ours, append([]string{"sign", "--key=cosign.key", "-y", string(img)}, way.args...)...)
					got, err := policy(t, host+"/team/*", theirs+"/cosign.pub", ours+"/cosign.pub").Verify(t.Context(), img)
					if err != nil {
						t.Fatal(err)
					}
					if e := got.Evidence(); e.Image != img || e.Format != way.format || e.Rule != "team" {
						t.Errorf("evidence = %+v", e)
					}
					refused(t, verify(t, policy(t, host+"/**", theirs+"/cosign.pub"), img), way.format+": ")
					refused(t, verify(t, policy(t, "elsewhere.example.com/**", ours+"/cosign.pub"), img), "no image rule matches "+host)
				})
			}
		})
	}
}

func verify(t testing.TB, v *signing.Verifier, img schema.Image) error {
	t.Helper()
	got, err := v.Verify(t.Context(), img)
	if err != nil && got != (signing.Verified{}) {
		t.Errorf("a proof %+v came with the error %v", got, err)
	}
	return err
}

// Signers disagree on the hash for other curves, and on how Ed25519 is used;
// what the real command lines write with such keys is accepted.
func TestOtherKindsOfCosignKeys(t *testing.T) {
	host, dir := harness.ReferrersRegistry(t), cosignKey(t)
	p384, err384 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, err521 := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	rsa3072, errRSA := rsa.GenerateKey(rand.Reader, 3072)
	_, ed, errEd := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(err384, err521, errRSA, errEd); err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-384": p384, "P-521": p521, "RSA-3072": rsa3072, "Ed25519": ed} {
		private, err := cryptoutils.MarshalPrivateKeyToPEM(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "plain.pem"), private, 0o600); err != nil {
			t.Fatal(err)
		}
		mustCosign(t, "cosign-v2", dir, "import-key-pair", "--key=plain.pem", "--output-key-prefix="+name)
		for _, way := range cosignWays {
			t.Run(name+"/"+way.name, func(t *testing.T) {
				t.Parallel()
				img := push(t, host)
				mustCosign(t, way.tool, dir, append([]string{"sign", "--key=" + name + ".key", "-y", string(img)}, way.args...)...)
				if err := verify(t, policy(t, "**", dir+"/"+name+".pub"), img); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// The signature of a multi-platform image is for the index, whose digest the
// commit names; it says nothing about an image that is named by itself.
func TestMultiPlatformImage(t *testing.T) {
	dir, host := cosignKey(t), harness.ReferrersRegistry(t)
	index, err := random.Index(64, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(host + "/team/multi:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, index); err != nil {
		t.Fatal(err)
	}
	whole, errDigest := index.Digest()
	manifest, errManifest := index.IndexManifest()
	if err := errors.Join(errDigest, errManifest); err != nil {
		t.Fatal(err)
	}
	for _, way := range cosignWays {
		img := schema.Image(host + "/team/multi@" + whole.String())
		mustCosign(t, way.tool, dir, append([]string{"sign", "--key=cosign.key", "-y", string(img)}, way.args...)...)
		if err := verify(t, policy(t, "**", dir+"/cosign.pub"), img); err != nil {
			t.Errorf("%s: %v", way.name, err)
		}
		one := schema.Image(host + "/team/multi@" + manifest.Manifests[0].Digest.String())
		refused(t, verify(t, policy(t, "**", dir+"/cosign.pub"), one), "no signature")
	}
}
