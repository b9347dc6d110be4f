package signing

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing/internal/evidence"
)

const (
	// payloadType is what critical.type of a classic payload must say.
	payloadType = "cosign container image signature"
	// signPredicate is the in-toto predicate that says "I sign this image".
	// Other predicates (a scan report, a bill of materials) speak about an image
	// and approve nothing, though the same key may have signed them.
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// check verifies m for image against the keys of r, and names the key that
// holds.
func (r *rule) check(m evidence.Material, image schema.Image) (signer string, err error) {
	switch m.Format {
	case evidence.FormatBundle:
		return r.checkBundle(m.Bundle, image)
	case evidence.FormatCosign:
		return r.checkPayload(m.Payload, m.Signature, image)
	}
	return "", fmt.Errorf("unknown format %q", m.Format)
}

// payload is the part of a classic "simple signing" document that is decided on.
type payload struct {
	Critical struct {
		Type  string `json:"type"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
	} `json:"critical"`
}

// checkPayload verifies a classic cosign signature. The repository that the
// payload names is not compared: an image keeps its signature when it is copied
// to a mirror, and the digest says what it is.
func (r *rule) checkPayload(document, sig []byte, image schema.Image) (string, error) {
	k, err := r.signedBy(document, sig)
	if err != nil {
		return "", err
	}
	var p payload
	if err := json.Unmarshal(document, &p); err != nil {
		return "", fmt.Errorf("payload: %w", err)
	}
	if p.Critical.Type != payloadType {
		return "", fmt.Errorf("payload has type %q, want %q", p.Critical.Type, payloadType)
	}
	if p.Critical.Image.Digest != image.Digest() {
		return "", fmt.Errorf("it signs another image, %q", p.Critical.Image.Digest)
	}
	return k.signer, nil
}

// signedBy finds the key that made sig over document.
func (r *rule) signedBy(document, sig []byte) (*key, error) {
	for _, k := range r.keys {
		for _, v := range k.plain {
			if v.VerifySignature(bytes.NewReader(sig), bytes.NewReader(document)) == nil {
				return k, nil
			}
		}
	}
	return nil, errors.New("not made by a key of the rule")
}

// checkBundle verifies a Sigstore bundle.
func (r *rule) checkBundle(raw []byte, image schema.Image) (string, error) {
	entity, err := parseBundle(raw)
	if err != nil {
		return "", err
	}
	digest, err := hex.DecodeString(strings.TrimPrefix(image.Digest(), "sha256:"))
	if err != nil {
		return "", err
	}
	policy := verify.NewPolicy(verify.WithArtifactDigest("sha256", digest), verify.WithKey())
	var last error
	for _, k := range r.keys {
		for _, v := range k.bundles {
			result, err := v.Verify(entity, policy)
			if err != nil {
				last = err
				continue
			}
			if s := result.Statement; s != nil && s.GetPredicateType() != signPredicate {
				return "", fmt.Errorf("it is a statement of type %q, which approves nothing", s.GetPredicateType())
			}
			return k.signer, nil
		}
	}
	return "", fmt.Errorf("no key of the rule verifies it: %w", last)
}

// parseBundle reads a bundle for verification with a key. Log entries and
// timestamps add nothing to a key that is trusted by itself, so they are
// dropped before anything parses them.
func parseBundle(raw []byte) (*bundle.Bundle, error) {
	var pb v1.Bundle
	if err := protojson.Unmarshal(raw, &pb); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if m := pb.GetVerificationMaterial(); m != nil {
		if m.GetPublicKey() == nil && m.GetContent() != nil {
			return nil, errors.New("bundle is signed with a certificate (keyless), and the rule trusts keys")
		}
		m.TlogEntries, m.TimestampVerificationData = nil, nil
	}
	b, err := bundle.NewBundle(&pb)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return b, nil
}
