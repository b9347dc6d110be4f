package signingtest

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
	"github.com/tidemark-edge/tidemark/signing/internal/evidence"
)

// Accept returns a verifier that accepts these images and no others, offline:
// their signatures, by a fresh key, are already on disk. The images need not
// exist.
func Accept(t testing.TB, images ...schema.Image) *signing.Verifier {
	t.Helper()
	key, dir := NewKey(t), t.TempDir()
	var rules []schema.ImageRule
	seen := map[string]bool{}
	for _, image := range images {
		Keep(t, key, dir, image)
		if repository := image.Repository(); !seen[repository] {
			seen[repository] = true
			rules = append(rules, key.Rule(fmt.Sprintf("test-%d", len(rules)), repository))
		}
	}
	return newVerifier(t, rules, dir)
}

// Verifier returns a verifier that trusts the key for the repositories that
// match, and has no evidence yet.
func Verifier(t testing.TB, key *Key, match ...string) *signing.Verifier {
	t.Helper()
	var rules []schema.ImageRule
	for i, m := range match {
		rules = append(rules, key.Rule(fmt.Sprintf("test-%d", i), m))
	}
	return newVerifier(t, rules, filepath.Join(t.TempDir(), "evidence"))
}

// Keep stores evidence in dir that key signed image, as a Verifier over that
// directory would have.
func Keep(t testing.TB, key *Key, dir string, image schema.Image) {
	t.Helper()
	store, err := evidence.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := evidence.Material{
		Format:   evidence.FormatBundle,
		Bundle:   key.Bundle(t, image.Digest()),
		Verified: time.Now().UTC().Truncate(time.Second),
	}
	if err := store.Save(image.Digest(), m); err != nil {
		t.Fatal(err)
	}
}

func newVerifier(t testing.TB, rules []schema.ImageRule, dir string) *signing.Verifier {
	t.Helper()
	v, err := signing.New(rules, nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
