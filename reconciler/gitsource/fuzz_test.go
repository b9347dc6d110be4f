package gitsource

import (
	"bytes"
	"crypto/sha1"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

const commitSeed = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nparent 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n" +
	"author A <a@b> 1700000000 +0000\ncommitter C <c@d> 1700000001 +0100\n\nSubject\n\nBody\n"

func FuzzParseCommit(f *testing.F) {
	f.Add([]byte(commitSeed))
	f.Add([]byte(strings.Replace(commitSeed, "\n\nS", "\ngpgsig x\n y\n\nS", 1)))
	f.Add([]byte("tree x\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseCommit(raw)
		if err != nil {
			return
		}
		r := c.revision(plumbing.ZeroHash, "main", "")
		if strings.ContainsAny(r.Subject+r.Author, "\n\r\x1b\x00") || len(r.Subject) > 210 || len(r.Author) > 210 {
			t.Errorf("unfit to print: %q %q", r.Subject, r.Author)
		}
		if _, err := r.Time.MarshalJSON(); err != nil {
			t.Error(err)
		}
	})
}

func FuzzParseTree(f *testing.F) {
	f.Add([]byte("100644 a\x00aaaaaaaaaaaaaaaaaaaa40000 b\x00bbbbbbbbbbbbbbbbbbbb"))
	f.Add([]byte("120000 a\x00aaaaaaaaaaaaaaaaaaaa160000 b\x00bbbbbbbbbbbbbbbbbbbb"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := parseTree(raw)
		if err != nil {
			return
		}
		for _, e := range entries {
			if i, ok := search(entries, e.name); !ok || entries[i] != e || checkFileName(e.name) != nil {
				t.Errorf("%q is not found", e.name)
			}
		}
	})
}

func FuzzParseAccepted(f *testing.F) {
	path := filepath.Join(f.TempDir(), "accepted.json")
	if err := (accepted{Revision: schema.Revision{Commit: strings.Repeat("a", 40)}}).write(path); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"sha256":"","state":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if a, err := parseAccepted(raw); err == nil && a.Revision.IsZero() {
			t.Error("accepted nothing")
		}
	})
}

func FuzzParseLocation(f *testing.F) {
	for _, s := range []string{"/a", "file:///a", "https://a/b", "ssh://u@h:1/~x", "u@h:p", "u@[::1]:p"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, err := parseLocation(s)
		if err == nil && at.kind == kindSSH && (strings.HasPrefix(at.host, "-") || at.path == "" || at.user == "") {
			t.Errorf("%q: %+v", s, at)
		}
	})
}

// A pack from a hostile server: never a panic, and what is read back has the
// hash that was asked for.
func FuzzReceive(f *testing.F) {
	g := harness.NewGit(f)
	g.Commit(map[string]string{"file": strings.Repeat("a line of text\n", 40), "other": "x"})
	g.Commit(map[string]string{"file": strings.Repeat("a line of text\n", 41)})
	g.Run("-c", "alias.p=!git rev-list --objects --all | cut -c1-40 | git pack-objects -q --stdout > pack", "p")
	raw, err := os.ReadFile(filepath.Join(g.Dir, "pack"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	dir := f.TempDir()
	limits := DefaultLimits()
	limits.TotalBytes, limits.ObjectBytes = 1<<20, 1<<18
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > sha1.Size { // else the checksum keeps everything out
			body := raw[:len(raw)-sha1.Size]
			sum := sha1.Sum(body)
			raw = append(bytes.Clone(body), sum[:]...)
		}
		p, err := receive(bytes.NewReader(raw), dir, limits)
		if err != nil || p == nil {
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Fatalf("left behind: %v", left)
			}
			return
		}
		defer p.discard()
		commits, err := p.commits(maxGraphBytes)
		for id, c := range commits {
			if kind, raw, err := p.read(id); err == nil && (kind != plumbing.CommitObject || !bytes.Equal(raw, c.raw)) {
				t.Errorf("commit %s reads otherwise", id)
			}
		}
		if err != nil {
			return // a sound pack with nonsense in it
		}
	})
}

func TestCommitsThatTwoReadersCouldReadDifferently(t *testing.T) {
	for name, raw := range map[string]string{
		"two trees":       strings.Replace(commitSeed, "parent", "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nparent", 1),
		"late tree":       strings.Replace(commitSeed, "\n\nS", "\ntree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nS", 1),
		"late parent":     strings.Replace(commitSeed, "\n\nS", "\nparent 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nS", 1),
		"two authors":     strings.Replace(commitSeed, "committer", "author X <x@y> 1 +0000\ncommitter", 1),
		"two committers":  strings.Replace(commitSeed, "\n\nS", "\ncommitter X <x@y> 1 +0000\n\nS", 1),
		"no tree":         commitSeed[46:],
		"short parent":    strings.Replace(commitSeed, "parent 4b", "parent ", 1),
		"nothing":         "",
		"committer first": "committer C <c@d> 1 +0000\n" + commitSeed,
	} {
		if c, err := parseCommit([]byte(raw)); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}
