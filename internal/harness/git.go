package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Signer is the principal that SignedCommit signs as.
const Signer = "operator@example.com"

// Git is a repository with a work tree, made with the git command line, on
// branch main.
type Git struct {
	Dir string // of the work tree

	t   testing.TB
	key string // SSH private key
}

// NewGit makes an empty repository.
func NewGit(t testing.TB) *Git {
	t.Helper()
	g := &Git{Dir: filepath.Join(t.TempDir(), "fleet"), t: t}
	g.run("init", "-q", "-b", "main", g.Dir)
	for _, kv := range [][2]string{
		{"user.name", "Operator"}, {"user.email", Signer}, {"gc.auto", "0"}, {"commit.gpgsign", "false"},
		{"gpg.format", "ssh"}, {"uploadpack.allowFilter", "true"},
	} {
		g.Run("config", kv[0], kv[1])
	}
	return g
}

// URL is the repository's address for a process on this machine.
func (g *Git) URL() string { return g.Dir }

// Run runs git in the work tree and returns what it prints.
func (g *Git) Run(args ...string) string {
	g.t.Helper()
	return g.run(append([]string{"-C", g.Dir}, args...)...)
}

func (g *Git) run(args ...string) string {
	g.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		g.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// Commit writes files, by path in the repository, commits them and returns the
// commit's hash. Without files the commit is empty.
func (g *Git) Commit(files map[string]string) string {
	g.t.Helper()
	return g.commit(files)
}

// SignedCommit is Commit with an SSH signature that AllowedSigners admits.
func (g *Git) SignedCommit(files map[string]string) string {
	g.t.Helper()
	return g.commit(files, "-S"+g.Key())
}

func (g *Git) commit(files map[string]string, args ...string) string {
	g.t.Helper()
	add := []string{"add", "--"}
	for name, content := range files {
		path := filepath.Join(g.Dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			g.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			g.t.Fatal(err)
		}
		add = append(add, name)
	}
	if len(files) > 0 {
		g.Run(add...)
	}
	g.Run(append([]string{"commit", "-q", "--allow-empty", "-m", "Change the fleet"}, args...)...)
	return g.Head()
}

// Head is the hash of the current commit.
func (g *Git) Head() string {
	g.t.Helper()
	return g.Run("rev-parse", "HEAD")
}

// Key is the SSH private key that SignedCommit uses, made at the first call.
func (g *Git) Key() string {
	g.t.Helper()
	if g.key == "" {
		g.key = NewSSHKey(g.t, Signer)
	}
	return g.key
}

// AllowedSigners writes a file in ssh-keygen's format that admits Key.
func (g *Git) AllowedSigners() string {
	g.t.Helper()
	public, err := os.ReadFile(g.Key() + ".pub")
	if err != nil {
		g.t.Fatal(err)
	}
	path := filepath.Join(g.t.TempDir(), "allowed_signers")
	if err := os.WriteFile(path, append([]byte(Signer+" "), public...), 0o644); err != nil {
		g.t.Fatal(err)
	}
	return path
}

// NewSSHKey makes an Ed25519 key pair and returns the private key's path; the
// public key is beside it, in a file that ends in .pub.
func NewSSHKey(t testing.TB, comment string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "id_ed25519")
	out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	return path
}
