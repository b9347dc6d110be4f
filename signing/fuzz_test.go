package signing

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tidemark-edge/tidemark/schema"
)

// None of what follows is signed by the key, so nothing may be accepted; above
// all, nothing may panic.

const fuzzImage = schema.Image("example.com/app@sha256:0000000000000000000000000000000000000000000000000000000000000000")

func fuzzRule(f *testing.F) *rule {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	public, err := cryptoutils.MarshalPublicKeyToPEM(private.Public())
	if err != nil {
		f.Fatal(err)
	}
	k, err := parseKey(public)
	if err != nil {
		f.Fatal(err)
	}
	return &rule{name: "fuzz", keys: []*key{k}}
}

func FuzzBundle(f *testing.F) {
	r := fuzzRule(f)
	statement := base64.StdEncoding.EncodeToString([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"00"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`))
	const head = `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":`
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, head + `null}`,
		head + `{"publicKey":{"hint":"x"}},"dsseEnvelope":{"payload":"` + statement + `","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AAAA"}]}}`,
		head + `{"publicKey":{"hint":"x"}},"dsseEnvelope":{"payload":"","signatures":[null]}}`,
		head + `{"publicKey":{}},"dsseEnvelope":{}}`,
		head + `{"publicKey":{}},"messageSignature":{}}`,
		head + `{"publicKey":{}},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"` + base64.StdEncoding.EncodeToString(make([]byte, 32)) + `"},"signature":"AAAA"}}`,
		head + `{"publicKey":{},"tlogEntries":[{"logIndex":"1","inclusionProof":{}}],"timestampVerificationData":{"rfc3161Timestamps":[{}]}},"messageSignature":{}}`,
		head + `{"certificate":{"rawBytes":"AAAA"}},"messageSignature":{}}`,
		head + `{"x509CertificateChain":{"certificates":[]}},"messageSignature":{}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if signer, err := r.checkBundle(raw, fuzzImage); err == nil {
			t.Errorf("accepted, signed by %s: %q", signer, raw)
		}
	})
}

func FuzzPayload(f *testing.F) {
	r := fuzzRule(f)
	f.Add([]byte(`{"critical":{"image":{"docker-manifest-digest":"sha256:00"},"type":"cosign container image signature"}}`), []byte("sig"))
	f.Add([]byte(``), []byte{0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x00})
	f.Fuzz(func(t *testing.T, document, sig []byte) {
		if signer, err := r.checkPayload(document, sig, fuzzImage); err == nil {
			t.Errorf("accepted, signed by %s: %q, %q", signer, document, sig)
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = parseKey(data) })
}

func FuzzPattern(f *testing.F) {
	f.Add("example.com/**/app-*", "example.com/a/app-b")
	f.Fuzz(func(t *testing.T, pattern, repository string) {
		match, err := parsePattern(pattern)
		if err != nil {
			return
		}
		r := &rule{match: match}
		r.matches(repository)
		if !strings.Contains(pattern, "*") && !r.matches(pattern) {
			t.Errorf("%q does not match itself", pattern)
		}
	})
}

func FuzzCommit(f *testing.F) {
	const head = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n"
	const sig = "gpgsig -----BEGIN SSH SIGNATURE-----\n U1NIU0lH\n -----END SSH SIGNATURE-----\n"
	for _, seed := range []string{"", "\n\n", head + "\nmessage", head + sig + "\nmessage", head + sig + sig + "\nm", head + "mergetag object x\n type commit\n" + sig + "\nm"} {
		f.Add([]byte(seed))
	}
	c := &Commits{}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if principal, err := c.VerifyCommit(raw); err == nil {
			t.Errorf("accepted, signed by %q: %q", principal, raw)
		}
		parsed, err := parseCommit(raw)
		if err != nil {
			return
		}
		// The payload is the object without exactly one header.
		header := "gpgsig " + strings.ReplaceAll(string(parsed.signature), "\n", "\n ") + "\n"
		at := bytes.Index(raw, []byte(header))
		if at < 0 || string(parsed.payload) != string(raw[:at])+string(raw[at+len(header):]) {
			t.Errorf("payload %q of %q", parsed.payload, raw)
		}
	})
}

func FuzzSSHSignature(f *testing.F) {
	for _, blob := range []string{"", "SSHSIG", "SSHSIG\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03git"} {
		f.Add([]byte(blob))
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		armored := fmt.Sprintf("%s\n%s\n%s", sshArmorBegin, base64.StdEncoding.EncodeToString(blob), sshArmorEnd)
		if s, err := parseSSHSignature([]byte(armored)); err == nil && s.verify([]byte("message")) == nil {
			t.Errorf("verifies: %q", blob)
		}
		_, _ = parseSSHSignature(blob)
	})
}

func FuzzSigners(f *testing.F) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for _, line := range []string{"alice " + key, `"a b" namespaces="git,file" ` + key, `a valid-after="20240101Z",valid-before="20250101" ` + key, "# x\n\n", `a cert-authority ` + key, `a namespaces="[` + key} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		signers, err := parseSigners(data)
		if err != nil {
			return
		}
		for _, s := range signers {
			if s.principals == "" || len(s.key) == 0 {
				t.Errorf("%+v from %q", s, data)
			}
		}
	})
}
