package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

func cosign(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(harness.Tool(t, "cosign-v3"), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "TUF_ROOT="+dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// What this program signs, the real cosign and a device accept; the keys of
// either tool serve the other.
func TestSignedForCosignAndForDevices(t *testing.T) {
	for kind, start := range map[string]func(testing.TB) string{"distribution-2.8": harness.Registry, "referrers-api": harness.ReferrersRegistry} {
		for maker, password := range map[string]string{"sign": "", "cosign": "", "sign, with password": "tide"} {
			t.Run(kind+"/"+maker, func(t *testing.T) {
				t.Setenv("COSIGN_PASSWORD", password)
				dir := t.TempDir()
				prefix := filepath.Join(dir, "cosign")
				if maker == "cosign" {
					if out, err := cosign(t, dir, "generate-key-pair"); err != nil {
						t.Fatalf("%v\n%s", err, out)
					}
				} else if err := run([]string{"generate-key-pair", "--output-key-prefix", prefix}); err != nil {
					t.Fatal(err)
				}
				host := start(t)
				image := harness.PushFiles(t, host, "app", map[string][]byte{"main": []byte(kind + maker)}, v1.Config{})
				rules := []schema.ImageRule{{Name: "demo", Match: host + "/*", Keys: []string{prefix + ".pub"}}}
				device, err := signing.New(rules, nil, filepath.Join(dir, "evidence"))
				if err != nil {
					t.Fatal(err)
				}
				check := []string{"verify", "--key=cosign.pub", "--insecure-ignore-tlog", "--offline", string(image)}
				if out, err := cosign(t, dir, check...); err == nil {
					t.Fatalf("cosign accepts an unsigned image:\n%s", out)
				}

				if err := run([]string{"--key", prefix + ".key", string(image)}); err != nil {
					t.Fatal(err)
				}
				if out, err := cosign(t, dir, check...); err != nil || !strings.Contains(out, strings.TrimPrefix(image.Digest(), "sha256:")) {
					t.Errorf("cosign verify: %v\n%s", err, out)
				}
				proof, err := device.Verify(t.Context(), image)
				if err != nil || proof.Evidence().Format != "sigstore-bundle" {
					t.Errorf("device: %+v, %v", proof.Evidence(), err)
				}
				signMore(t, dir, prefix, image)
			})
		}
	}
}

// signMore signs with cosign what this program has signed.
func signMore(t *testing.T, dir, prefix string, image schema.Image) {
	t.Helper()
	if out, err := cosign(t, dir, "signing-config", "create", "--out=config.json"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := cosign(t, dir, "sign", "-y", "--signing-config=config.json", "--key="+prefix+".key", string(image)); err != nil {
		t.Errorf("cosign sign with the same key: %v\n%s", err, out)
	}
}

func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	prefix := filepath.Join(dir, "cosign")
	t.Setenv("COSIGN_PASSWORD", "right")
	if err := run([]string{"generate-key-pair", "--output-key-prefix", prefix}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(prefix + ".key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("private key: %v, %v", info.Mode(), err)
	}
	const image = "127.0.0.1:1/app@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for want, args := range map[string][]string{
		"file exists":            {"generate-key-pair", "--output-key-prefix", prefix},
		"name an image":          {"--key", prefix + ".key"},
		"no such file":           {"--key", prefix + ".none", image},
		"key " + prefix + ".pub": {"--key", prefix + ".pub", image},
		"latest":                 {"--key", prefix + ".key", "127.0.0.1:1/app:latest"},
		"refused":                {"--key", prefix + ".key", image},
	} {
		if err := run(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	t.Setenv("COSIGN_PASSWORD", "wrong")
	if err := run([]string{"--key", prefix + ".key", image}); err == nil || !strings.Contains(err.Error(), prefix+".key") {
		t.Errorf("wrong password: %v", err)
	}
}
