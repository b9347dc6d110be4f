package signing_test

import (
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

// A pass of the agent over modules that run: the proof is in memory.
func BenchmarkVerifyRemembered(b *testing.B) {
	v := signingtest.Accept(b, image(1))
	b.ReportAllocs()
	for b.Loop() {
		if err := verify(b, v, image(1)); err != nil {
			b.Fatal(err)
		}
	}
}

// The first pass after a boot: evidence is read and verified.
func BenchmarkVerifyFromEvidence(b *testing.B) {
	key, dir := signingtest.NewKey(b), b.TempDir()
	signingtest.Keep(b, key, dir, image(1))
	rules := []schema.ImageRule{key.Rule("team", "**")}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		v := newVerifier(b, rules, dir)
		b.StartTimer()
		if err := verify(b, v, image(1)); err != nil {
			b.Fatal(err)
		}
	}
}

// A new image: the registry is asked, and the signature kept with fsync.
func BenchmarkVerifyFromRegistry(b *testing.B) {
	for format, sign := range map[string]func(*signingtest.Key, testing.TB, schema.Image){
		"bundle":  (*signingtest.Key).Sign,
		"classic": (*signingtest.Key).SignClassic,
	} {
		b.Run(format, func(b *testing.B) {
			key, img := signingtest.NewKey(b), push(b, harness.ReferrersRegistry(b))
			sign(key, b, img)
			v := signingtest.Verifier(b, key, "**")
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if err := v.Prune(nil); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := verify(b, v, img); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
