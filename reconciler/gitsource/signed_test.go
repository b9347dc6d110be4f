package gitsource

import (
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/signing"
)

// The real verifier over the real bytes, by each way they can arrive.
func TestSignaturesAreVerifiedOverWhatWasFetched(t *testing.T) {
	for name, url := range transports(t) {
		t.Run(name, func(t *testing.T) {
			g := harness.NewGit(t)
			commits, err := signing.NewCommits(g.AllowedSigners())
			if err != nil {
				t.Fatal(err)
			}
			one := g.SignedCommit(file("1"))
			s, err := Open(t.TempDir(), url(t, g, signed("")), commits)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			fetch(t, s, one, "1")
			if r, _, err := s.Accepted(); err != nil || r.Signer != harness.Signer {
				t.Errorf("signer %q, %v", r.Signer, err)
			}
			g.SignedCommit(file("2"))
			three := g.SignedCommit(file("3"))
			fetch(t, s, three, "3")

			// Signed by somebody, but not by one of ours.
			stranger := harness.NewSSHKey(t, "stranger")
			g.Run("commit", "-q", "--allow-empty", "-S"+stranger, "-m", "Foreign")
			refuses(t, s, g.Head(), "allowedSigners")
			g.Run("reset", "-q", "--hard", three)

			// Our signature, carried over to another commit.
			forged := forge(t, g, three)
			g.Run("update-ref", "refs/heads/main", forged)
			refuses(t, s, forged)
		})
	}
}

// forge makes a child of parent with parent's signature in it.
func forge(t *testing.T, g *harness.Git, parent string) string {
	t.Helper()
	raw := g.Run("cat-file", "commit", parent)
	lines := strings.Split(raw, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "parent ") {
			lines[i] = "parent " + parent
		}
	}
	object := write(t, strings.Join(lines, "\n")+"\n")
	return g.Run("hash-object", "-t", "commit", "-w", object)
}
