package gitsource

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

// eachFile lists the regular files under dir.
func eachFile(t testing.TB, dir string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// damages are the ways in which a disk ruins a file.
var damages = map[string]func(raw []byte) []byte{
	"empty":     func([]byte) []byte { return nil },
	"truncated": func(raw []byte) []byte { return raw[:len(raw)*2/3] },
	"flipped": func(raw []byte) []byte {
		for i := len(raw) / 3; i < len(raw); i += 7 {
			raw[i] ^= 0x55
		}
		return raw
	},
	"zeroed": func(raw []byte) []byte { return make([]byte, len(raw)) },
	"gone":   nil,
}

func damage(t testing.TB, path string, how func([]byte) []byte) {
	t.Helper()
	raw := []byte(readFile(t, path))
	if err := os.Remove(path); err != nil { // read-only files, and open ones, keep what they have
		t.Fatal(err)
	}
	if how == nil {
		return
	}
	if err := os.WriteFile(path, how(raw), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Every file of the state, ruined in every way: the next process finds the
// accepted revision again, and does not go back meanwhile.
func TestEveryFileDamaged(t *testing.T) {
	g := harness.NewGit(t)
	zero := g.SignedCommit(file("0"))
	dir := t.TempDir()
	s := openIn(t, dir, signed(g.URL()))
	fetch(t, s, zero, "0")
	one := g.SignedCommit(map[string]string{"file": "1", "a/b": "x"})
	fetch(t, s, one, "1")
	s.Close()
	for _, path := range eachFile(t, dir) {
		name, _ := filepath.Rel(dir, path)
		if name == "lock" {
			continue
		}
		for how, ruin := range damages {
			t.Run(how+" "+name, func(t *testing.T) {
				copied := t.TempDir()
				if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				damage(t, filepath.Join(copied, name), ruin)
				s := openIn(t, copied, signed(g.URL()))

				g.Run("reset", "-q", "--hard", zero) // the repository must not take the device back meanwhile
				if _, _, err := s.Fetch(t.Context()); err == nil {
					t.Error("went back to an older commit")
				}
				g.Run("reset", "-q", "--hard", one)
				tree := fetch(t, s, one, "1")
				if raw, err := fs.ReadFile(tree, "a/b"); string(raw) != "x" {
					t.Errorf("a/b: %q, %v", raw, err)
				}
				r, _, err := s.Accepted()
				if err != nil || r.Commit != one {
					t.Errorf("accepted %s, %v", r.Commit, err)
				}
			})
		}
	}
}

// Damage is found while the device runs, too: by reading.
func TestDamageUnderARunningDevice(t *testing.T) {
	g := harness.NewGit(t)
	one := g.SignedCommit(map[string]string{"file": "1", "unread": strings.Repeat("not in any cache\n", 100)})
	s := open(t, signed(serveHTTP(t, g, nil).URL))
	tree := fetch(t, s, one, "1")
	packs, _ := filepath.Glob(filepath.Join(s.clonePath(), "objects", "pack", "*.pack"))
	raw := []byte(readFile(t, packs[0]))
	f, err := os.OpenFile(packs[0], os.O_WRONLY, 0) // in place: the same file that is open
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(damages["flipped"](raw), 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := fs.ReadFile(tree, "unread"); err == nil {
		t.Fatal("damaged file was read")
	}
	if r, _, err := s.Accepted(); err == nil || r.Commit != one {
		t.Errorf("accepted %s, %v: want the revision, and an error", r.Commit, err)
	}
	fetch(t, s, one, "1")
	if raw, err := fs.ReadFile(tree, "unread"); err != nil || len(raw) != 1700 {
		t.Errorf("unread: %d bytes, %v", len(raw), err)
	}
	wantContent(t, tree, "1") // the tree of before reads from the new clone
	notes := strings.Join(s.Mended(), "\n")
	if !strings.Contains(notes, "fetched anew") || !strings.Contains(notes, ".broken-") {
		t.Errorf("notes: %q", notes)
	}
	if len(s.Mended()) > 0 {
		t.Error("notes are told twice")
	}
}

// A clone that is damaged while the branch went on, or was rewritten.
func TestDamagedCloneAndAMovedBranch(t *testing.T) {
	g := harness.NewGit(t)
	g.SignedCommit(file("0"))
	one := g.SignedCommit(file("1"))
	dir := t.TempDir()
	s := openIn(t, dir, signed(g.URL()))
	fetch(t, s, one, "1")
	ruin := func() {
		s.Close()
		packs, _ := filepath.Glob(filepath.Join(dir, "clone", "objects", "pack", "*.pack"))
		for _, p := range packs {
			damage(t, p, damages["empty"])
		}
		s = openIn(t, dir, signed(g.URL()))
	}
	ruin()
	g.SignedCommit(file("2"))
	three := g.SignedCommit(file("3"))
	fetch(t, s, three, "3")

	ruin()
	g.Commit(file("4"))
	unsigned := func() {
		t.Helper()
		if _, _, err := s.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "no signature") {
			t.Fatalf("fetch: %v", err)
		}
	}
	unsigned() // healed on the way
	if _, tree, err := s.Accepted(); err != nil {
		t.Error(err)
	} else {
		wantContent(t, tree, "3")
	}
	unsigned()

	ruin()
	g.Run("reset", "-q", "--hard", one)
	g.SignedCommit(file("5"))
	for range 2 {
		if _, _, err := s.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "rewritten") {
			t.Fatalf("fetch: %v", err)
		}
	}
	if r, _, err := s.Accepted(); err == nil || r.Commit != three {
		t.Errorf("accepted %s, %v", r.Commit, err)
	}
	g.Run("reset", "-q", "--hard", three)
	fetch(t, s, three, "3")
	if aside, _ := filepath.Glob(filepath.Join(dir, "clone.broken-*")); len(aside) != 1 {
		t.Errorf("%d clones set aside, want 1: %v", len(aside), aside)
	}
}

func TestStateAndCloneLost(t *testing.T) {
	g := harness.NewGit(t)
	one := g.SignedCommit(file("1"))
	dir := t.TempDir()
	s := openIn(t, dir, signed(g.URL()))
	fetch(t, s, one, "1")
	s.Close()
	damage(t, filepath.Join(dir, "accepted.json"), damages["flipped"])
	if err := os.RemoveAll(filepath.Join(dir, "clone")); err != nil {
		t.Fatal(err)
	}
	s = openIn(t, dir, signed(g.URL()))
	if notes := strings.Join(s.Mended(), "\n"); !strings.Contains(notes, "set aside") || !strings.Contains(notes, "by its signature alone") {
		t.Errorf("notes: %q", notes)
	}
	refuses(t, s, g.Commit(file("2")), "no signature")
	fetch(t, s, g.SignedCommit(file("3")), "3")
}

// The exchange of a damaged clone is two renames; the power may go between.
func TestExchangeCutShort(t *testing.T) {
	g := harness.NewGit(t)
	one := g.SignedCommit(file("1"))
	dir := t.TempDir()
	s := openIn(t, dir, signed(g.URL()))
	fetch(t, s, one, "1")
	s.Close()
	if err := os.Rename(filepath.Join(dir, "clone"), filepath.Join(dir, "clone.new")); err != nil {
		t.Fatal(err)
	}
	s = openIn(t, dir, signed(g.URL()))
	if _, tree, err := s.Accepted(); err != nil {
		t.Fatal(err)
	} else {
		wantContent(t, tree, "1")
	}
	s.Close()
	if err := os.MkdirAll(filepath.Join(dir, "clone.new", "objects"), 0o700); err != nil { // begun, not finished
		t.Fatal(err)
	}
	s = openIn(t, dir, signed(g.URL()))
	fetch(t, s, one, "1")
	if _, err := os.Stat(filepath.Join(dir, "clone.new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("clone.new: %v", err)
	}
}

// What a killed process leaves behind in the middle of a transfer.
func TestLeftoversOfAnInterruptedTransfer(t *testing.T) {
	g := harness.NewGit(t)
	one := g.SignedCommit(file("1"))
	dir := t.TempDir()
	s := openIn(t, dir, signed(g.URL()))
	fetch(t, s, one, "1")
	s.Close()
	orphan := filepath.Join(dir, "clone", "objects", "pack", "pack-"+strings.Repeat("a", 40)+".idx")
	incoming := filepath.Join(dir, "clone", "incoming", "incoming-1.pack")
	for _, path := range []string{orphan, incoming, filepath.Join(dir, ".new-1")} {
		if err := os.WriteFile(path, []byte("PACK half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = openIn(t, dir, signed(g.URL()))
	for _, path := range []string{orphan, incoming} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there", path)
		}
	}
	fetch(t, s, g.SignedCommit(file("2")), "2")
}

// A full disk is this device's trouble, and no reason to doubt the network; when
// there is room again, the fetch goes through.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Fatalf("mount a small disk (it takes root): %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	g := harness.NewGit(t)
	one := g.SignedCommit(file("1"))
	s := openIn(t, dir, signed(g.URL()))
	fetch(t, s, one, "1")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 400<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 200<<10)
	for i := range noise {
		noise[i] = byte(i*i*7>>5 ^ i>>9)
	}
	two := g.SignedCommit(map[string]string{"file": "2", "noise": string(noise)})
	_, _, err := s.Fetch(t.Context())
	var unreachable *UnreachableError
	if !errors.Is(err, syscall.ENOSPC) || errors.As(err, &unreachable) {
		t.Fatalf("fetch onto a full disk: %v", err)
	}
	if _, tree, err := s.Accepted(); err != nil {
		t.Error(err)
	} else {
		wantContent(t, tree, "1")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	fetch(t, s, two, "2")
}
