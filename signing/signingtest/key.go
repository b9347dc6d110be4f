// Package signingtest signs images for tests, without the cosign command line,
// and makes verifiers that accept them. Only tests import it.
package signingtest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tidemark-edge/tidemark/schema"
)

// SignPredicate is the in-toto predicate type of an image's signature.
const SignPredicate = "https://sigstore.dev/cosign/sign/v1"

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Key is a fresh signing key, ECDSA P-256 as cosign makes it.
type Key struct {
	PublicFile string // PEM, what a rule's Keys names

	pair *sign.EphemeralKeypair
}

// NewKey makes a key; its public half is in a file that goes with the test.
func NewKey(t testing.TB) *Key {
	t.Helper()
	pair, err := sign.NewEphemeralKeypair(nil)
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.GetPublicKeyPem()
	if err != nil {
		t.Fatal(err)
	}
	k := &Key{PublicFile: filepath.Join(t.TempDir(), "cosign.pub"), pair: pair}
	if err := os.WriteFile(k.PublicFile, []byte(public), 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

// Rule trusts the key for the repositories that match.
func (k *Key) Rule(name, match string) schema.ImageRule {
	return schema.ImageRule{Name: name, Match: match, Keys: []string{k.PublicFile}}
}

// Bundle is the Sigstore bundle that "cosign sign" of v3 makes for digest
// ("sha256:…") where no transparency log is used.
func (k *Key) Bundle(t testing.TB, digest string) []byte {
	t.Helper()
	return k.Statement(t, digest, SignPredicate)
}

// Statement is a bundle with an in-toto statement of any predicate type about
// digest; only SignPredicate signs an image.
func (k *Key) Statement(t testing.TB, digest, predicate string) []byte {
	t.Helper()
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`,
		strings.TrimPrefix(digest, "sha256:"), predicate)
	return k.bundle(t, &sign.DSSEData{Data: []byte(statement), PayloadType: "application/vnd.in-toto+json"})
}

// Message is a bundle with a message signature over manifest, as "cosign
// sign-blob" makes it.
func (k *Key) Message(t testing.TB, manifest []byte) []byte {
	t.Helper()
	return k.bundle(t, &sign.PlainData{Data: manifest})
}

func (k *Key) bundle(t testing.TB, content sign.Content) []byte {
	t.Helper()
	pb, err := sign.Bundle(content, k.pair, sign.BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := protojson.Marshal(pb)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Payload is the document that a classic signature of digest signs, and the
// signature.
func (k *Key) Payload(t testing.TB, digest string) (payload, sig []byte) {
	t.Helper()
	payload = fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
	return payload, k.SignData(t, payload)
}

// SignData signs any bytes.
func (k *Key) SignData(t testing.TB, data []byte) []byte {
	t.Helper()
	sig, _, err := k.pair.SignData(context.Background(), data)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// Sign signs an image in its registry with a bundle, which it attaches as an
// OCI 1.1 referrer, as cosign v3 does.
func (k *Key) Sign(t testing.TB, image schema.Image) {
	t.Helper()
	AttachBundle(t, image, k.Bundle(t, image.Digest()), SignPredicate)
}

// SignClassic signs an image in its registry under the tag sha256-….sig, as
// cosign v2 does.
func (k *Key) SignClassic(t testing.TB, image schema.Image) {
	t.Helper()
	payload, sig := k.Payload(t, image.Digest())
	AttachClassic(t, image, Classic{Payload: payload, Signature: base64.StdEncoding.EncodeToString(sig)})
}

// AttachBundle makes any bytes a bundle that refers to image.
func AttachBundle(t testing.TB, image schema.Image, bundle []byte, predicate string) {
	t.Helper()
	ref := reference(t, image)
	subject, err := remote.Head(ref)
	if err != nil {
		t.Fatal(err)
	}
	layer, config := static.NewLayer(bundle, bundleType), static.NewLayer([]byte("{}"), "application/vnd.oci.empty.v1+json")
	manifest := v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  bundleType,
		Config:        upload(t, ref, config),
		Layers:        []v1.Descriptor{upload(t, ref, layer)},
		Subject:       &v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations: map[string]string{
			"org.opencontainers.image.created":  time.Now().UTC().Format(time.RFC3339),
			"dev.sigstore.bundle.content":       "dsse-envelope",
			"dev.sigstore.bundle.predicateType": predicate,
		},
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	digest, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Put(ref.Context().Digest(digest.String()), document(raw)); err != nil {
		t.Fatal(err)
	}
}

// Classic is one entry of an image's classic signatures.
type Classic struct {
	Payload   []byte // the document that is signed
	Signature string // base64, as the annotation has it
}

// AttachClassic adds any entries to the classic signatures of image.
func AttachClassic(t testing.TB, image schema.Image, entries ...Classic) {
	t.Helper()
	const mediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	tag := reference(t, image).Context().Tag(strings.Replace(image.Digest(), ":", "-", 1) + ".sig")
	base := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	if have, err := remote.Image(tag); err == nil {
		base = have
	}
	var layers []mutate.Addendum
	for _, e := range entries {
		layers = append(layers, mutate.Addendum{
			Layer:       static.NewLayer(e.Payload, mediaType),
			MediaType:   mediaType,
			Annotations: map[string]string{"dev.cosignproject.cosign/signature": e.Signature},
		})
	}
	signed, err := mutate.Append(base, layers...)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, signed); err != nil {
		t.Fatal(err)
	}
}

func reference(t testing.TB, image schema.Image) name.Digest {
	t.Helper()
	ref, err := name.NewDigest(string(image))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func upload(t testing.TB, ref name.Digest, layer v1.Layer) v1.Descriptor {
	t.Helper()
	if err := remote.WriteLayer(ref.Context(), layer); err != nil {
		t.Fatal(err)
	}
	described, err := partial.Descriptor(layer)
	if err != nil {
		t.Fatal(err)
	}
	return *described
}

// document is a manifest as it shall be stored.
type document []byte

func (d document) RawManifest() ([]byte, error)        { return d, nil }
func (d document) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
