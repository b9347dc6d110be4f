package signing

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// maxSSHSignature bounds an armored signature; one by RSA-16384 takes 6 KB.
const maxSSHSignature = 32 << 10

const (
	sshArmorBegin = "-----BEGIN SSH SIGNATURE-----"
	sshArmorEnd   = "-----END SSH SIGNATURE-----"
	sshMagic      = "SSHSIG"
)

// sshSignature is a parsed signature in the format of OpenSSH's
// PROTOCOL.sshsig, version 1.
type sshSignature struct {
	key       ssh.PublicKey
	signature ssh.Signature
	reserved  []byte
	algorithm string // of the hash over the message
}

// parseSSHSignature reads an armored signature for namespace git.
func parseSSHSignature(armored []byte) (*sshSignature, error) {
	blob, err := unarmor(armored)
	if err != nil {
		return nil, err
	}
	var wire struct {
		Version   uint32
		PublicKey []byte
		Namespace string
		Reserved  []byte
		Algorithm string
		Signature []byte
	}
	body, ok := bytes.CutPrefix(blob, []byte(sshMagic))
	if !ok {
		return nil, errors.New("SSH signature: does not start with " + sshMagic)
	}
	if err := ssh.Unmarshal(body, &wire); err != nil {
		return nil, fmt.Errorf("SSH signature: %w", err)
	}
	if wire.Version != 1 {
		return nil, fmt.Errorf("SSH signature: version %d, want 1", wire.Version)
	}
	if wire.Namespace != gitNamespace {
		return nil, fmt.Errorf("SSH signature: made for namespace %q, not for %s", wire.Namespace, gitNamespace)
	}
	key, err := ssh.ParsePublicKey(wire.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("SSH signature: public key: %w", err)
	}
	if err := checkKey(key); err != nil {
		return nil, fmt.Errorf("SSH signature: %w", err)
	}
	out := &sshSignature{key: key, reserved: wire.Reserved, algorithm: wire.Algorithm}
	if err := ssh.Unmarshal(wire.Signature, &out.signature); err != nil {
		return nil, fmt.Errorf("SSH signature: %w", err)
	}
	return out, nil
}

// unarmor decodes the lines between BEGIN and END, and accepts nothing outside.
func unarmor(armored []byte) ([]byte, error) {
	text := string(armored)
	for _, other := range []struct{ begin, name string }{
		{"-----BEGIN PGP ", "OpenPGP"},
		{"-----BEGIN SIGNED MESSAGE", "X.509 (S/MIME)"},
	} {
		if strings.HasPrefix(text, other.begin) {
			return nil, fmt.Errorf("it is signed with %s, and only SSH signatures are verified: sign with git config gpg.format ssh", other.name)
		}
	}
	if len(text) > maxSSHSignature {
		return nil, fmt.Errorf("SSH signature: larger than %d bytes", maxSSHSignature)
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) < 3 || lines[0] != sshArmorBegin || lines[len(lines)-1] != sshArmorEnd {
		return nil, fmt.Errorf("signature is not between %s and %s", sshArmorBegin, sshArmorEnd)
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(strings.Join(lines[1:len(lines)-1], ""))
	if err != nil {
		return nil, fmt.Errorf("SSH signature: %w", err)
	}
	return blob, nil
}

// verify checks the signature over message.
func (s *sshSignature) verify(message []byte) error {
	var h hash.Hash
	switch s.algorithm {
	case "sha256":
		h = sha256.New()
	case "sha512":
		h = sha512.New()
	default:
		return fmt.Errorf("hash %q: want sha256 or sha512", s.algorithm)
	}
	// With RSA the key type does not say the algorithm, and ssh-rsa means SHA-1.
	if s.key.Type() == ssh.KeyAlgoRSA && !slices.Contains([]string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}, s.signature.Format) {
		return fmt.Errorf("algorithm %s: want rsa-sha2-512 or rsa-sha2-256", s.signature.Format)
	}
	security := strings.HasPrefix(s.key.Type(), "sk-") // carries flags and a counter behind the signature
	if !security && len(s.signature.Rest) > 0 {
		return errors.New("bytes behind the signature")
	}
	h.Write(message)
	signed := append([]byte(sshMagic), ssh.Marshal(struct {
		Namespace string
		Reserved  []byte
		Algorithm string
		Hash      []byte
	}{gitNamespace, s.reserved, s.algorithm, h.Sum(nil)})...)
	return s.key.Verify(signed, &s.signature)
}
