package signing_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

// image is one that exists nowhere.
func image(n int) schema.Image {
	return schema.Image(fmt.Sprintf("registry.invalid/app@sha256:%064x", n))
}

func TestAcceptedFromEvidenceWithoutNetwork(t *testing.T) {
	v := signingtest.Accept(t, image(1), image(2))
	for _, want := range []schema.Image{image(1), image(2)} {
		got, err := v.Verify(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		e := got.Evidence()
		if got.Image() != want || e.Format != "sigstore-bundle" || e.Rule != "test-0" || !strings.HasPrefix(e.Signer, "key sha256:") || e.Verified.IsZero() {
			t.Errorf("evidence = %+v", e)
		}
	}
	_, err := v.Verify(t.Context(), image(3))
	if registry := new(signing.RegistryError); !errors.As(err, &registry) {
		t.Errorf("an image without evidence and without registry: %v, want a *RegistryError", err)
	}
}
