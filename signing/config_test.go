package signing_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// publicPEM is the public half of a fresh key, as cosign writes it.
func publicPEM(t *testing.T, private crypto.Signer, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cryptoutils.MarshalPublicKeyToPEM(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestKeyFiles(t *testing.T) {
	p256, err256 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p224, err224 := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	p384, err384 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, err521 := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	rsa2048, errRSA := rsa.GenerateKey(rand.Reader, 2048)
	rsa1024, errWeak := rsa.GenerateKey(rand.Reader, 1024)
	_, ed, errEd := ed25519.GenerateKey(rand.Reader)
	good := publicPEM(t, p256, err256)
	private, err := cryptoutils.MarshalPrivateKeyToPEM(p256)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ content, want string }{
		"P-256":            {good, ""},
		"P-384":            {publicPEM(t, p384, err384), ""},
		"P-521":            {publicPEM(t, p521, err521), ""},
		"RSA-2048":         {publicPEM(t, rsa2048, errRSA), ""},
		"Ed25519":          {publicPEM(t, ed, errEd), ""},
		"P-224":            {publicPEM(t, p224, err224), "want ECDSA"},
		"RSA-1024":         {publicPEM(t, rsa1024, errWeak), "want ECDSA"},
		"empty":            {"", "no PEM public key"},
		"not PEM":          {"ssh-ed25519 AAAA", "no PEM public key"},
		"private key":      {string(private), "must not be on a device"},
		"cosign's private": {"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "must not be on a device"},
		"certificate":      {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "CERTIFICATE"},
		"two keys":         {good + good, "more than one"},
		"damaged":          {"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "asn1"},
		"too large":        {good + strings.Repeat("\n", 1<<20), "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "key.pub")
			if err := os.WriteFile(file, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := signing.New([]schema.ImageRule{{Name: "team", Match: "**", Keys: []string{file}}}, nil, t.TempDir())
			if tt.want == "" && err != nil {
				t.Error(err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "rule team")) {
				t.Errorf("error = %v, want %q, the file and the rule", err, tt.want)
			}
		})
	}
}

func TestConfigurationErrors(t *testing.T) {
	dir := t.TempDir()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	key := filepath.Join(dir, "cosign.pub")
	if err := os.WriteFile(key, []byte(publicPEM(t, p256, err)), 0o600); err != nil {
		t.Fatal(err)
	}
	rule := func(name, match string, keys ...string) schema.ImageRule {
		return schema.ImageRule{Name: name, Match: match, Keys: keys}
	}
	for want, rules := range map[string][]schema.ImageRule{
		"name is empty":             {rule("", "**", key)},
		"two rules have this name":  {rule("a", "**", key), rule("a", "example.com/b", key)},
		"no keys":                   {rule("a", "**")},
		"no such file":              {rule("a", "**", filepath.Join(dir, "none"))},
		`match ""`:                  {rule("a", "", key)},
		`match "app"`:               {rule("a", "app", key)},
		`match "example.com/"`:      {rule("a", "example.com/", key)},
		`match "example.com//app"`:  {rule("a", "example.com//app", key)},
		`match "/app"`:              {rule("a", "/app", key)},
		`match "example.com/[a-z]"`: {rule("a", "example.com/[a-z]", key)},
		`match "example.com/App"`:   {rule("a", "example.com/App", key)},
		`match "example.com/a?p"`:   {rule("a", "example.com/a?p", key)},
		"names a digest":            {rule("a", "example.com/app@sha256:00", key)},
		"** must stand alone":       {rule("a", "example.com/a**", key)},
		"longer than 512":           {rule("a", "example.com/"+strings.Repeat("a/", 300)+"b", key)},
	} {
		if _, err := signing.New(rules, nil, t.TempDir()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", rules, err, want)
		}
	}
	for want, config := range map[string]schema.Registry{
		"caFile: open":       {CAFile: filepath.Join(dir, "none")},
		"no PEM certificate": {CAFile: key},
		"remove one":         {CAFile: key, PlainHTTP: true},
	} {
		_, err := signing.New(nil, map[string]schema.Registry{"example.com": config}, t.TempDir())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "registry example.com") {
			t.Errorf("%+v: %v, want %q", config, err, want)
		}
	}
	if _, err := signing.New(nil, nil, filepath.Join(key, "below-a-file")); err == nil || !strings.Contains(err.Error(), key) {
		t.Errorf("evidence below a file: %v", err)
	}
}
