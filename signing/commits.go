package signing

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// maxSignersFile bounds an allowed signers file.
const maxSignersFile = 1 << 20

// Commits decides which commits of the fleet repository count: those with an
// SSH signature by an allowed signer. Its methods may be called concurrently.
//
// # Validity periods
//
// A line of the file may say valid-after and valid-before. The time of a
// signature is not in the signature: git takes the commit's own committer time,
// which whoever signs can choose, and a device's clock may stand in 1970. So a
// commit is judged at the later of two times: the one that it claims, and the
// one of the newest commit that it is known to descend from (VerifyDescendant).
// A commit contains the hash of its parent, so it cannot be older than that.
// Hence the key of a signer who left is refused as soon as the accepted history
// has passed its valid-before, whatever date a new commit claims, and what was
// signed in time stays good. Until then a date in the past is believed: the
// answer to a stolen key is to delete its line, not to give it an end.
type Commits struct {
	signers []signer
}

// NewCommits reads a file in the ALLOWED SIGNERS format of ssh-keygen(1). An
// error names the file and the line. Lines for certificate authorities are
// refused rather than ignored: list the keys themselves.
func NewCommits(allowedSigners string) (*Commits, error) {
	data, err := durable.Read(allowedSigners, maxSignersFile)
	if err != nil {
		return nil, fmt.Errorf("allowed signers: %w", err)
	}
	signers, err := parseSigners(data)
	if err != nil {
		return nil, fmt.Errorf("allowed signers %s:%w", allowedSigners, err)
	}
	if len(signers) == 0 {
		return nil, fmt.Errorf("allowed signers %s: names nobody, so every commit would be refused: add a line \"name key-type key\"", allowedSigners)
	}
	return &Commits{signers: signers}, nil
}

// VerifyCommit verifies the signature of a commit object: raw is its content,
// byte for byte as git stores it, without the "commit <size>" header. The caller
// has made sure that raw hashes to the commit's id. It returns the principals of
// the line that allows the signer. Every error is a refusal.
func (c *Commits) VerifyCommit(raw []byte) (principal string, err error) {
	return c.VerifyDescendant(raw, time.Time{})
}

// VerifyDescendant is VerifyCommit for a commit that is known to descend from
// one whose committer time is since.
func (c *Commits) VerifyDescendant(raw []byte, since time.Time) (principal string, err error) {
	commit, err := parseCommit(raw)
	if err != nil {
		return "", fmt.Errorf("verify commit: %w", err)
	}
	sig, err := parseSSHSignature(commit.signature)
	if err != nil {
		return "", fmt.Errorf("verify commit: %w", err)
	}
	at := commit.committed
	if since.After(at) {
		at = since
	}
	s, err := c.allowed(sig.key, at)
	if err != nil {
		return "", fmt.Errorf("verify commit: %w", err)
	}
	if err := sig.verify(commit.payload); err != nil {
		return "", fmt.Errorf("verify commit: signature of %s: %w", s.principals, err)
	}
	return s.principals, nil
}

// allowed finds the line that allows key at that time. Several lines may name
// the same key, for periods that follow each other.
func (c *Commits) allowed(key ssh.PublicKey, at time.Time) (*signer, error) {
	blob := key.Marshal()
	reason := errors.New("is not in the allowed signers file")
	for i := range c.signers {
		s := &c.signers[i]
		if !bytes.Equal(s.key, blob) {
			continue
		}
		if reason = s.allows(at); reason == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("key %s %w", ssh.FingerprintSHA256(key), reason)
}
