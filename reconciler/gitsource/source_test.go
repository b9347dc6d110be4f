package gitsource

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// sawSignature is a CommitVerifier that looks for an SSH signature in the raw
// bytes and believes it.
type sawSignature struct{}

func (sawSignature) VerifyCommit(raw []byte) (string, error) {
	head, _, _ := bytes.Cut(raw, []byte("\n\n"))
	if !bytes.Contains(head, []byte("\ngpgsig -----BEGIN SSH SIGNATURE-----\n")) {
		return "", errors.New("it carries no signature")
	}
	return harness.Signer, nil
}

// off is the configuration of an unsigned repository at url.
func off(url string) schema.Repository {
	return schema.Repository{URL: url, Branch: "main", Verify: schema.VerifyOff}
}

func signed(url string) schema.Repository {
	return schema.Repository{URL: url, Branch: "main", Verify: schema.VerifySigned}
}

// open opens a source in a directory of its own and ends it with the test.
func open(t testing.TB, repo schema.Repository) *Source {
	t.Helper()
	return openIn(t, filepath.Join(t.TempDir(), "source"), repo)
}

func openIn(t testing.TB, dir string, repo schema.Repository) *Source {
	t.Helper()
	s, err := Open(dir, repo, sawSignature{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// fetch wants commit to be accepted, with content in the file named file.
func fetch(t testing.TB, s *Source, commit, content string) fs.FS {
	t.Helper()
	r, tree, err := s.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Commit != commit {
		t.Fatalf("fetched %s, want %s", r.Commit, commit)
	}
	wantContent(t, tree, content)
	return tree
}

func wantContent(t testing.TB, tree fs.FS, content string) {
	t.Helper()
	got, err := fs.ReadFile(tree, "file")
	if err != nil || string(got) != content {
		t.Fatalf("file is %q, %v; want %q", got, err, content)
	}
}

// refuses wants the tip to be refused with all words in the reason, and what
// was accepted to stand.
func refuses(t testing.TB, s *Source, tip string, words ...string) {
	t.Helper()
	before, _, beforeErr := s.Accepted()
	_, tree, err := s.Fetch(t.Context())
	var refused *schema.RefusedError
	if !errors.As(err, &refused) || tree != nil {
		t.Fatalf("fetch: %v, want a refusal", err)
	}
	if refused.Revision.Commit != tip || refused.Phase != schema.PhaseFetching {
		t.Errorf("refused %s while %s, want %s", refused.Revision.Commit, refused.Phase, tip)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the reason %q does not say %q", err, w)
		}
	}
	after, _, afterErr := s.Accepted()
	if before.Commit != after.Commit || (beforeErr == nil) != (afterErr == nil) {
		t.Errorf("accepted %s before and %s after (%v)", before.Commit, after.Commit, afterErr)
	}
}

func file(content string) map[string]string { return map[string]string{"file": content} }

func TestFirstFetchThenFastForward(t *testing.T) {
	g := harness.NewGit(t)
	g.Commit(file("0"))
	one := g.Commit(map[string]string{"file": "1", "a/b/c": "deep"})
	s := open(t, off(g.URL()))
	if _, _, err := s.Accepted(); !errors.Is(err, ErrNothingAccepted) {
		t.Fatalf("before the first fetch: %v", err)
	}
	tree := fetch(t, s, one, "1")
	two := g.Commit(file("2"))
	fetch(t, s, two, "2")
	wantContent(t, tree, "1") // an older tree stays readable

	r, tree2, err := s.Accepted()
	if err != nil || r.Commit != two {
		t.Fatalf("accepted %s, %v; want %s", r.Commit, err, two)
	}
	wantContent(t, tree2, "2")
	if r.Ref != "main" || r.Author != "Operator <operator@example.com>" || r.Subject != "Change the fleet" || r.Time.IsZero() || r.Signer != "" {
		t.Errorf("revision %+v", r)
	}
}

func TestAcceptedSurvivesARestartWithoutTheRepository(t *testing.T) {
	g := harness.NewGit(t)
	one := g.SignedCommit(file("1"))
	dir := t.TempDir()
	s := openIn(t, dir, signed(g.URL()))
	fetch(t, s, one, "1")
	s.Close()
	if err := os.RemoveAll(g.Dir); err != nil {
		t.Fatal(err)
	}
	s = openIn(t, dir, signed(g.URL()))
	_, _, err := s.Fetch(t.Context())
	var unreachable *UnreachableError
	if !errors.As(err, &unreachable) {
		t.Fatalf("fetch without a repository: %v", err)
	}
	r, tree, err := s.Accepted()
	if err != nil || r.Commit != one || r.Signer != harness.Signer {
		t.Fatalf("accepted %+v, %v", r, err)
	}
	wantContent(t, tree, "1")
}

func TestCatchesUpOverManyCommits(t *testing.T) {
	for _, filter := range []string{"true", "false"} {
		t.Run("filter "+filter, func(t *testing.T) {
			g := harness.NewGit(t)
			g.Run("config", "uploadpack.allowFilter", filter)
			one := g.SignedCommit(file("1"))
			url := serveHTTP(t, g, nil).URL
			s := open(t, signed(url))
			fetch(t, s, one, "1")
			var last string
			for range 40 {
				last = g.SignedCommit(file("2"))
			}
			fetch(t, s, last, "2")
		})
	}
}

func TestFurtherThanCanBeProven(t *testing.T) {
	g := harness.NewGit(t)
	one := g.SignedCommit(file("1"))
	s := open(t, signed(g.URL()))
	s.Limits.Commits = 20
	fetch(t, s, one, "1")
	g.SignedCommit(file("2"))
	step := g.Head()
	for range 25 {
		g.SignedCommit(nil)
	}
	last := g.Head()
	refuses(t, s, last, "cannot be shown to contain", "smaller steps")
	g.Run("reset", "-q", "--hard", step+"~0")
	fetch(t, s, step, "2")
}

func TestMergedBranchThatForkedBeforeTheAcceptedCommit(t *testing.T) {
	for name, url := range transports(t) {
		t.Run(name, func(t *testing.T) {
			g := harness.NewGit(t)
			g.SignedCommit(file("0"))
			g.Run("checkout", "-q", "-b", "side")
			g.Commit(map[string]string{"other": "x"}) // need not be signed: the merge answers for it
			g.Commit(map[string]string{"other": "y"})
			g.Run("checkout", "-q", "main")
			one := g.SignedCommit(file("1"))
			s := open(t, url(t, g, signed("")))
			fetch(t, s, one, "1")
			g.Run("merge", "-q", "--no-ff", "-S"+g.Key(), "-m", "Merge", "side")
			fetch(t, s, g.Head(), "1")
		})
	}
}

// A plain git pull before a push merges the published branch into the local one:
// the accepted commit is then the second parent.
func TestMergeTheWrongWayRound(t *testing.T) {
	for _, own := range []bool{true, false} {
		g := harness.NewGit(t)
		g.SignedCommit(file("0"))
		g.Run("checkout", "-q", "-b", "mine")
		if own {
			g.SignedCommit(map[string]string{"other": "x"})
		} else {
			g.Commit(map[string]string{"other": "x"})
		}
		g.Run("checkout", "-q", "main")
		one := g.SignedCommit(file("1"))
		s := open(t, signed(g.URL()))
		fetch(t, s, one, "1")
		g.Run("checkout", "-q", "mine")
		g.Run("merge", "-q", "--no-ff", "-S"+g.Key(), "-m", "Merge", "main")
		g.Run("checkout", "-q", "-B", "main")
		if own {
			fetch(t, s, g.Head(), "1")
		} else {
			refuses(t, s, g.Head(), "must be signed as well")
		}
	}
}

func TestForcePushIsRefused(t *testing.T) {
	for name, url := range transports(t) {
		t.Run(name, func(t *testing.T) {
			g := harness.NewGit(t)
			g.SignedCommit(file("0"))
			one := g.SignedCommit(file("1"))
			s := open(t, url(t, g, signed("")))
			tree := fetch(t, s, one, "1")

			g.Run("commit", "-q", "--amend", "--allow-empty", "-S"+g.Key(), "-m", "Other")
			rewritten := g.Head()
			refuses(t, s, rewritten, "rewritten", one[:12], "git merge", s.dir)
			wantContent(t, tree, "1")

			g.Run("reset", "-q", "--hard", one+"~1")
			refuses(t, s, g.Head(), "set back", one[:12], "git revert")

			g.Run("checkout", "-q", "--orphan", "unrelated")
			g.SignedCommit(file("x"))
			g.Run("branch", "-q", "-M", "main")
			refuses(t, s, g.Head(), "rewritten")

			// A branch that contains the accepted commit again is taken again.
			g.Run("reset", "-q", "--hard", one)
			fetch(t, s, one, "1")
			fetch(t, s, g.SignedCommit(file("2")), "2")
		})
	}
}

func TestUnsignedTipIsRefused(t *testing.T) {
	g := harness.NewGit(t)
	bad := g.Commit(file("0"))
	s := open(t, signed(g.URL()))
	refuses(t, s, bad, "no signature", "git commit --amend -S")
	if _, _, err := s.Accepted(); !errors.Is(err, ErrNothingAccepted) {
		t.Errorf("accepted: %v", err)
	}
	one := g.SignedCommit(file("1")) // the first tip must be signed; what is below it is the past
	fetch(t, s, one, "1")
	refuses(t, s, g.Commit(file("2")), "no signature", "newest commit")
	g.Run("commit", "-q", "--amend", "-S"+g.Key(), "-m", "Signed")
	fetch(t, s, g.Head(), "2")
}

// CVE class: checking the tip alone lets an unsigned commit hide below it.
func TestUnsignedCommitBelowASignedOneIsRefused(t *testing.T) {
	g := harness.NewGit(t)
	one := g.SignedCommit(file("1"))
	s := open(t, signed(g.URL()))
	fetch(t, s, one, "1")
	bad := g.Commit(file("2"))
	g.Run("checkout", "-q", "-b", "side")
	g.SignedCommit(map[string]string{"other": "x"})
	g.Run("checkout", "-q", "main")
	g.Run("merge", "-q", "--no-ff", "-S"+g.Key(), "-m", "Merge", "side")
	refuses(t, s, g.Head(), bad[:12], "must be signed as well")
	if n := len(s.current().packs); n != 1 {
		t.Errorf("%d packs after a refusal, want 1", n)
	}
	g.Run("rebase", "-q", "--exec", "git commit -q --amend --no-edit -S"+g.Key(), one)
	fetch(t, s, g.Head(), "2")
}

func TestBranchDeletedAndEmptyRepository(t *testing.T) {
	for name, url := range transports(t) {
		t.Run(name, func(t *testing.T) {
			g := harness.NewGit(t)
			s := open(t, url(t, g, off("")))
			if _, _, err := s.Fetch(t.Context()); !errors.Is(err, ErrNoBranch) {
				t.Fatalf("empty repository: %v", err)
			}
			one := g.Commit(file("1"))
			fetch(t, s, one, "1")
			g.Run("checkout", "-q", "-b", "other")
			g.Run("branch", "-q", "-D", "main")
			_, _, err := s.Fetch(t.Context())
			if !errors.Is(err, ErrNoBranch) || !strings.Contains(err.Error(), "main") {
				t.Fatalf("deleted branch: %v", err)
			}
			if r, _, err := s.Accepted(); err != nil || r.Commit != one {
				t.Errorf("accepted %s, %v", r.Commit, err)
			}
		})
	}
}

func TestAtReadsAncestorsOnly(t *testing.T) {
	for name, url := range transports(t) {
		t.Run(name, func(t *testing.T) {
			g := harness.NewGit(t)
			zero := g.SignedCommit(file("0"))
			one := g.SignedCommit(file("1"))
			s := open(t, url(t, g, signed("")))
			fetch(t, s, one, "1")
			two := g.SignedCommit(file("2"))
			fetch(t, s, two, "2")
			foreign := g.Run("commit-tree", "-S"+g.Key(), "-m", "Foreign", "HEAD^{tree}")
			for commit, content := range map[string]string{zero: "0", one: "1", two: "2"} {
				r, tree, err := s.At(t.Context(), commit)
				if err != nil || r.Commit != commit || r.Signer != harness.Signer {
					t.Fatalf("at %s: %+v, %v", commit, r, err)
				}
				wantContent(t, tree, content)
			}
			for _, commit := range []string{foreign, "main", two[:12], strings.Repeat("0", 40), g.SignedCommit(file("3"))} {
				if _, _, err := s.At(t.Context(), commit); err == nil {
					t.Errorf("at %q: no error", commit)
				}
			}
		})
	}
}

func TestManyFetchesKeepTheCloneSmall(t *testing.T) {
	g := harness.NewGit(t)
	s := open(t, off(g.URL()))
	s.Limits.Packs = 3
	var first fs.FS
	for _, content := range strings.Split("abcdefghij", "") {
		tree := fetch(t, s, g.Commit(file(content)), content)
		if first == nil {
			first = tree
		}
		if n := len(s.current().packs); n > 4 {
			t.Fatalf("%d packs", n)
		}
	}
	packs, _ := filepath.Glob(filepath.Join(s.clonePath(), "objects", "pack", "*"))
	if len(packs) > 8 {
		t.Errorf("%d files left of packs: %v", len(packs), packs)
	}
	// Git itself finds nothing wrong with the clone.
	g.Run("--git-dir", s.clonePath(), "fsck", "--full", "--strict")
	if got := g.Run("--git-dir", s.clonePath(), "rev-parse", "HEAD"); got != g.Head() {
		t.Errorf("the clone is at %s", got)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	g := harness.NewGit(t)
	s := open(t, off(g.URL()))
	if _, err := Open(s.dir, off(g.URL()), nil); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second Open: %v", err)
	}
}

// What a signer is trusted for can end: the check is repeated by each process.
func TestSignerRemovedFromTheDevice(t *testing.T) {
	g := harness.NewGit(t)
	one := g.Commit(file("1"))
	dir := t.TempDir()
	s := openIn(t, dir, off(g.URL()))
	fetch(t, s, one, "1")
	s.Close()
	s = openIn(t, dir, signed(g.URL()))
	if _, _, err := s.Accepted(); err == nil || !strings.Contains(err.Error(), "no signature") {
		t.Errorf("accepted: %v", err)
	}
	refuses(t, s, one, "no signature")
}
