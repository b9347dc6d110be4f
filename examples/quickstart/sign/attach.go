package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	sigstore "github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"
)

const (
	bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	predicate  = "https://sigstore.dev/cosign/sign/v1"
)

// sign states "this digest is signed", signs the statement, and attaches it to
// the image as a referrer.
func sign(key *ecdsa.PrivateKey, image string) error {
	ref, err := name.NewDigest(image)
	if err != nil {
		return err
	}
	subject, err := remote.Head(ref)
	if err != nil {
		return err
	}
	raw, err := bundle(key, subject.Digest)
	if err != nil {
		return err
	}
	layer, config := static.NewLayer(raw, bundleType), static.NewLayer([]byte("{}"), "application/vnd.oci.empty.v1+json")
	manifest := v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  bundleType,
		Subject:       &v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations: map[string]string{
			"org.opencontainers.image.created":  time.Now().UTC().Format(time.RFC3339),
			"dev.sigstore.bundle.content":       "dsse-envelope",
			"dev.sigstore.bundle.predicateType": predicate,
		},
	}
	if manifest.Config, err = upload(ref, config); err != nil {
		return err
	}
	described, err := upload(ref, layer)
	if err != nil {
		return err
	}
	manifest.Layers = []v1.Descriptor{described}
	content, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		return err
	}
	// Where the registry has no referrers API, Put also keeps the fallback tag.
	return remote.Put(ref.Context().Digest(digest.String()), referrer(content))
}

// bundle is the Sigstore bundle that signs digest.
func bundle(key *ecdsa.PrivateKey, digest v1.Hash) ([]byte, error) {
	signer, err := signature.LoadECDSASigner(key, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	hint := sha256.Sum256(public)
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{%q:%q}}],"predicateType":%q,"predicate":{}}`,
		digest.Algorithm, digest.Hex, predicate)
	content := &sigstore.DSSEData{Data: []byte(statement), PayloadType: "application/vnd.in-toto+json"}
	sig, err := signer.SignMessage(bytes.NewReader(content.PreAuthEncoding()))
	if err != nil {
		return nil, err
	}
	out := &protobundle.Bundle{
		MediaType: bundleType,
		VerificationMaterial: &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{
			PublicKey: &protocommon.PublicKeyIdentifier{Hint: base64.StdEncoding.EncodeToString(hint[:])},
		}},
	}
	content.Bundle(out, sig, nil, 0)
	return protojson.Marshal(out)
}

// upload puts a blob beside the image, and returns what a manifest says of it.
func upload(ref name.Digest, layer v1.Layer) (v1.Descriptor, error) {
	described, err := partial.Descriptor(layer)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return *described, remote.WriteLayer(ref.Context(), layer)
}

// referrer is an encoded manifest, as remote.Put takes it.
type referrer []byte

func (r referrer) RawManifest() ([]byte, error)      { return r, nil }
func (referrer) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
