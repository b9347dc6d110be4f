//go:build bench

package bench

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

// measureVerify takes the time of a verification by a verifier that has just
// started: from the registry, and from the evidence that is on the disk.
func measureVerify(t *testing.T, f *table) {
	registry, key := harness.Registry(t), signingtest.NewKey(t)
	image := harness.PushFiles(t, registry, "app", map[string][]byte{"main": []byte("x")}, emptyConfig)
	key.Sign(t, image)
	dir := t.TempDir()
	verify := func() float64 {
		v, err := signing.New([]schema.ImageRule{key.Rule("bench", registry+"/**")}, nil, dir)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := v.Verify(context.Background(), image); err != nil {
			t.Fatal(err)
		}
		return ms(time.Since(began))
	}
	var asked, cached []float64
	for range 50 {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		asked = append(asked, verify())
		cached = append(cached, verify())
	}
	f.add("verify_registry_p50_ms", percentile(asked, 50), "ms", "key, Sigstore bundle, from a registry on this machine, evidence made durable")
	f.add("verify_evidence_p50_ms", percentile(cached, 50), "ms", "the same from the evidence on disk, no network, after a restart")
}
