package signing_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

// what is attached to an image, and why it counts or not.
var attachments = []struct {
	name   string
	attach func(t *testing.T, key *signingtest.Key, image schema.Image)
	want   string // part of the refusal; empty: accepted
}{
	{"bundle", func(t *testing.T, k *signingtest.Key, i schema.Image) { k.Sign(t, i) }, ""},
	{"classic", func(t *testing.T, k *signingtest.Key, i schema.Image) { k.SignClassic(t, i) }, ""},
	{"message signature over the manifest", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		signingtest.AttachBundle(t, i, k.Message(t, manifest(t, i)), "")
	}, ""},
	{"good bundle among bad ones", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		for n := range 5 {
			signingtest.AttachBundle(t, i, fmt.Appendf(nil, "{%d", n), "")
			signingtest.NewKey(t).Sign(t, i)
		}
		k.Sign(t, i)
		signingtest.NewKey(t).Sign(t, i)
	}, ""},
	{"good classic among bad ones", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		signingtest.NewKey(t).SignClassic(t, i)
		k.SignClassic(t, i)
		signingtest.NewKey(t).SignClassic(t, i)
		signingtest.AttachClassic(t, i, signingtest.Classic{Payload: []byte("{}"), Signature: "!"})
		signingtest.AttachBundle(t, i, []byte("{}"), signingtest.SignPredicate)
	}, ""},
	{"bundle of another key", func(t *testing.T, _ *signingtest.Key, i schema.Image) { signingtest.NewKey(t).Sign(t, i) },
		"sigstore-bundle: no key of the rule verifies it"},
	{"classic of another key", func(t *testing.T, _ *signingtest.Key, i schema.Image) { signingtest.NewKey(t).SignClassic(t, i) },
		"cosign-signature: not made by a key of the rule"},
	{"bundle of another image", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		signingtest.AttachBundle(t, i, k.Bundle(t, image(7).Digest()), signingtest.SignPredicate)
	}, "does not match"},
	{"classic of another image", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		payload, sig := k.Payload(t, image(7).Digest())
		signingtest.AttachClassic(t, i, signingtest.Classic{Payload: payload, Signature: base64.StdEncoding.EncodeToString(sig)})
	}, "it signs another image"},
	{"message signature of another image", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		signingtest.AttachBundle(t, i, k.Message(t, []byte("{}")), "")
	}, "does not match"},
	{"attestation by the same key", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		const scan = "https://cosign.sigstore.dev/attestation/vuln/v1"
		signingtest.AttachBundle(t, i, k.Statement(t, i.Digest(), scan), scan)
	}, "approves nothing"},
	{"attestation that says it is a signature", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		signingtest.AttachBundle(t, i, k.Statement(t, i.Digest(), "https://slsa.dev/provenance/v1"), signingtest.SignPredicate)
	}, "approves nothing"},
	{"bundle with its subject changed", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		other := string(k.Bundle(t, image(7).Digest()))
		swap := strings.Replace(other, statement(image(7)), statement(i), 1)
		if swap == other {
			t.Fatal("nothing changed")
		}
		signingtest.AttachBundle(t, i, []byte(swap), signingtest.SignPredicate)
	}, "no key of the rule verifies it"},
	{"truncated bundle", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		b := k.Bundle(t, i.Digest())
		signingtest.AttachBundle(t, i, b[:len(b)/2], signingtest.SignPredicate)
	}, "sigstore-bundle: bundle: "},
	{"empty bundle", func(t *testing.T, _ *signingtest.Key, i schema.Image) {
		signingtest.AttachBundle(t, i, []byte("{}"), signingtest.SignPredicate)
	}, "sigstore-bundle: bundle: "},
	{"bundle with a certificate", func(t *testing.T, _ *signingtest.Key, i schema.Image) {
		signingtest.AttachBundle(t, i, []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{"rawBytes":"AAAA"}},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"AAAA"},"signature":"AAAA"}}`), "")
	}, "keyless"},
	{"too large a bundle", func(t *testing.T, _ *signingtest.Key, i schema.Image) {
		signingtest.AttachBundle(t, i, make([]byte, 2<<20), signingtest.SignPredicate)
	}, "are more than"},
	{"classic with its payload changed", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		other, sig := k.Payload(t, image(7).Digest())
		payload := strings.Replace(string(other), image(7).Digest(), i.Digest(), 1)
		signingtest.AttachClassic(t, i, signingtest.Classic{Payload: []byte(payload), Signature: base64.StdEncoding.EncodeToString(sig)})
	}, "not made by a key of the rule"},
	{"classic of another type", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		payload, _ := k.Payload(t, i.Digest())
		payload = []byte(strings.Replace(string(payload), "cosign container image signature", "atomic container signature", 1))
		signingtest.AttachClassic(t, i, signingtest.Classic{Payload: payload, Signature: base64.StdEncoding.EncodeToString(k.SignData(t, payload))})
	}, `type "atomic container signature"`},
	{"classic over what is no document", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		payload := []byte(i.Digest())
		signingtest.AttachClassic(t, i, signingtest.Classic{Payload: payload, Signature: base64.StdEncoding.EncodeToString(k.SignData(t, payload))})
	}, "payload: "},
	{"classic with a broken annotation", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		payload, _ := k.Payload(t, i.Digest())
		signingtest.AttachClassic(t, i, signingtest.Classic{Payload: payload, Signature: "!"})
	}, "base64"},
	{"classic with an empty signature", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		payload, _ := k.Payload(t, i.Digest())
		signingtest.AttachClassic(t, i, signingtest.Classic{Payload: payload, Signature: ""})
	}, "not made by a key of the rule"},
	{"more bad signatures than are tried", func(t *testing.T, k *signingtest.Key, i schema.Image) {
		payload, sig := k.Payload(t, i.Digest())
		entries := []signingtest.Classic{{Payload: payload, Signature: base64.StdEncoding.EncodeToString(sig)}}
		for range 65 {
			entries = append(entries, signingtest.Classic{Payload: []byte("{}"), Signature: "AAAA"})
		}
		signingtest.AttachClassic(t, i, entries...)
	}, "not made by a key of the rule"},
}

func TestWhatIsAttachedToAnImage(t *testing.T) {
	for kind, start := range registries {
		t.Run(kind, func(t *testing.T) {
			host := start(t)
			for _, tt := range attachments {
				t.Run(tt.name, func(t *testing.T) {
					t.Parallel()
					key, img := signingtest.NewKey(t), push(t, host)
					tt.attach(t, key, img)
					err := verify(t, signingtest.Verifier(t, key, host+"/**"), img)
					if tt.want == "" {
						if err != nil {
							t.Error(err)
						}
						return
					}
					refused(t, err, tt.want)
					refused(t, err, "cosign sign --key")
				})
			}
		})
	}
}

// statement is the part of a bundle, in base64, that names the image. The digest
// starts at a multiple of three bytes in the statement.
func statement(i schema.Image) string {
	all := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":`, strings.TrimPrefix(i.Digest(), "sha256:"))
	encoded := base64.StdEncoding.EncodeToString([]byte(all))
	return encoded[:len(encoded)/4*4-4]
}

func manifest(t *testing.T, i schema.Image) []byte {
	t.Helper()
	ref, err := name.NewDigest(string(i))
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Get(ref)
	if err != nil {
		t.Fatal(err)
	}
	return got.Manifest
}

// "No signature: sign it" would send a person the wrong way.
func TestAnImageThatDoesNotExistIsNotCalledUnsigned(t *testing.T) {
	for kind, start := range registries {
		t.Run(kind, func(t *testing.T) {
			key, host := signingtest.NewKey(t), start(t)
			img := schema.Image(host + "/nothing/here" + "@" + image(1).Digest())
			refused(t, verify(t, signingtest.Verifier(t, key, "**"), img), "by rule test-0: the registry does not have this image: push it, or correct the digest")
			there := push(t, host)
			refused(t, verify(t, signingtest.Verifier(t, key, "**"), there), "the registry has no signature for it: sign it")
			gone := schema.Image(there.Repository() + "@" + image(1).Digest())
			refused(t, verify(t, signingtest.Verifier(t, key, "**"), gone), "does not have this image")
		})
	}
}

// It names the connection that failed, once, and none that was never tried.
func TestADeadPlainRegistryIsToldInOneClause(t *testing.T) {
	host := harness.FreeAddress(t)
	img := schema.Image(host + "/app@" + image(1).Digest())
	err := verify(t, signingtest.Verifier(t, signingtest.NewKey(t), "**"), img)
	want := fmt.Sprintf("verify %s: ask registry %s for signatures: dial tcp %s: connect: connection refused", img, host, host)
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestRefusalTellsTheRules(t *testing.T) {
	key := signingtest.NewKey(t)
	v := signingtest.Verifier(t, key, "registry.example.com/a/*", "registry.example.com/b/**")
	refused(t, verify(t, v, image(1)), "this device has test-0 (registry.example.com/a/*), test-1 (registry.example.com/b/**): add a rule")
	refused(t, verify(t, signingtest.Verifier(t, key), image(1)), "this device has no image rules")
	refused(t, verify(t, v, "registry.example.com/a/app:latest"), "pin the digest")
}

// The first rule that matches decides, also where a later one would accept.
func TestFirstMatchingRuleDecides(t *testing.T) {
	host := harness.ReferrersRegistry(t)
	strict, lax, img := signingtest.NewKey(t), signingtest.NewKey(t), push(t, host)
	lax.Sign(t, img)
	rules := []schema.ImageRule{strict.Rule("strict", host+"/team/*"), lax.Rule("lax", "**")}
	refused(t, verify(t, newVerifier(t, rules, t.TempDir()), img), "refused by rule strict")
	if err := verify(t, newVerifier(t, rules[1:], t.TempDir()), img); err != nil {
		t.Error(err)
	}
}
