package gitsource

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

func TestSSHRefusesAnUnknownHost(t *testing.T) {
	g := harness.NewGit(t)
	one := g.Commit(file("1"))
	repo := serveSSH(t, g).configure(off(""))
	at, err := parseLocation(repo.URL)
	if err != nil {
		t.Fatal(err)
	}
	other := loadSigner(t, harness.NewSSHKey(t, "other")).PublicKey()

	for name, c := range map[string]struct {
		change func(*schema.Repository)
		says   string
	}{
		"unknown host": {func(r *schema.Repository) { r.KnownHostsFile = write(t, "") }, "is not in"},
		"another key": {func(r *schema.Repository) {
			r.KnownHostsFile = write(t, knownhosts.Line([]string{knownhosts.Normalize(at.host)}, other))
		}, "another one: refused"},
		"no such file":  {func(r *schema.Repository) { r.KnownHostsFile = "/nonexistent" }, "knownHostsFile"},
		"foreign key":   {func(r *schema.Repository) { r.SSHKeyFile = harness.NewSSHKey(t, "stranger") }, "unable to authenticate"},
		"no key":        {func(r *schema.Repository) { r.SSHKeyFile = write(t, "hello") }, "not a private key"},
		"locked key":    {func(r *schema.Repository) { r.SSHKeyFile = lockedKey(t) }, "passphrase"},
		"no repository": {func(r *schema.Repository) { r.URL += "/none" }, "not appear to be a git repository"},
	} {
		t.Run(name, func(t *testing.T) {
			repo := repo
			c.change(&repo)
			unreachable(t, open(t, repo), []string{c.says})
		})
	}
	hashed := repo
	hashed.KnownHostsFile = write(t, knownhosts.HashHostname(knownhosts.Normalize(at.host))+" "+strings.SplitN(readFile(t, repo.KnownHostsFile), " ", 2)[1])
	fetch(t, open(t, hashed), one, "1")
}

// A path is one word for the shell on the other side.
func TestSSHPathIsQuoted(t *testing.T) {
	g := harness.NewGit(t)
	one := g.Commit(file("1"))
	odd := filepath.Join(filepath.Dir(g.Dir), "it's; touch pwned $(x)")
	if err := os.Rename(g.Dir, odd); err != nil {
		t.Fatal(err)
	}
	g.Dir = odd
	repo := serveSSH(t, g).configure(off(""))
	repo.URL = strings.ReplaceAll(repo.URL, " ", "%20")
	fetch(t, open(t, repo), one, "1")
}

func lockedKey(t testing.TB) string {
	path := filepath.Join(t.TempDir(), "id")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", path).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s", err, out)
	}
	return path
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
