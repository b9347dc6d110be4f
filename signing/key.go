package signing

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// maxKeyFile bounds a file with a public key; RSA-4096 takes 800 bytes.
const maxKeyFile = 16 << 10

// key is one trusted public key.
type key struct {
	signer string // as evidence shows it: "key sha256:<hex of the DER form's hash>"
	// Ways to verify, for signers disagree: with a curve larger than P-256,
	// sigstore's registry of algorithms takes a hash of the curve's size, and
	// cosign SHA-256; with Ed25519, the registry takes the pure form, and cosign
	// the pre-hashed one (RFC 8032).
	plain   []signature.Verifier
	bundles []*verify.Verifier
}

// loadKey reads a PEM public key as cosign writes it.
func loadKey(file string) (*key, error) {
	data, err := durable.Read(file, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	k, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	return k, nil
}

func parseKey(data []byte) (*key, error) {
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("no PEM public key in it: want the cosign.pub that belongs to the signer")
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return nil, errors.New("this is a private key, which must not be on a device: want the public one (cosign.pub)")
	case block.Type != "PUBLIC KEY":
		return nil, fmt.Errorf("PEM block %q: want PUBLIC KEY", block.Type)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("more than one PEM block: one file holds one key; list several files")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return newKey(pub, block.Bytes)
}

func newKey(pub crypto.PublicKey, der []byte) (*key, error) {
	sum := sha256.Sum256(der)
	k := &key{signer: "key sha256:" + hex.EncodeToString(sum[:])}
	// Refuses what the registry of algorithms does not have, short keys too.
	standard, err := signature.LoadDefaultVerifier(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: want ECDSA (P-256, P-384, P-521), RSA (2048, 3072, 4096 bits) or Ed25519", err)
	}
	k.plain = append(k.plain, standard)
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub.Curve.Params().BitSize > 256 {
			v, err := signature.LoadECDSAVerifier(pub, crypto.SHA256)
			if err != nil {
				return nil, err
			}
			k.plain = append(k.plain, v)
		}
	case ed25519.PublicKey:
		v, err := signature.LoadED25519phVerifier(pub)
		if err != nil {
			return nil, err
		}
		k.plain = append(k.plain, v)
	}
	for _, v := range k.plain {
		b, err := bundleVerifier(v)
		if err != nil {
			return nil, err
		}
		k.bundles = append(k.bundles, b)
	}
	return k, nil
}

// bundleVerifier trusts this one key and nothing else: no certificate
// authority, no log, no timestamps. The hint in a bundle chooses nothing.
func bundleVerifier(v signature.Verifier) (*verify.Verifier, error) {
	only := root.NewExpiringKey(v, time.Time{}, time.Time{})
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return only, nil })
	return verify.NewVerifier(material, verify.WithNoObserverTimestamps())
}
