package signing_test

import (
	"testing"

	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

func BenchmarkVerifyFromEvidence(b *testing.B) {
	v := signingtest.Accept(b, image(1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), image(1)); err != nil {
			b.Fatal(err)
		}
	}
}
