package gitsource

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// readAll reads every file of a tree, as rendering does.
func readAll(tree fs.FS) error {
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			_, err = fs.ReadFile(tree, name)
		}
		return err
	})
}

// rotten is a repository and a state directory to be damaged in copies: three
// packs, with deltas, and a commit that nobody has fetched.
type rotten struct {
	git       *harness.Git
	dir       string
	one, next string // accepted, and pushed later
}

func newRotten(t *testing.T) rotten {
	g := harness.NewGit(t)
	text := func(n int) string {
		var b strings.Builder
		for i := range 60 {
			fmt.Fprintf(&b, "line %d of %d\n", i, i*n%7)
		}
		return b.String()
	}
	g.SignedCommit(map[string]string{"file": "0", "a/b": text(1), "a/c": text(2), "kept": text(3)})
	dir := t.TempDir()
	s := openIn(t, dir, signed(g.URL()))
	var one string
	for i := range 3 {
		one = g.SignedCommit(map[string]string{"file": "1", "a/b": text(10 + i), fmt.Sprint("d/", i): text(i)})
		fetch(t, s, one, "1")
	}
	s.Close()
	next := g.SignedCommit(map[string]string{"file": "2", "e": "new"})
	g.Run("reset", "-q", "--hard", one)
	g.Run("branch", "next", next)
	return rotten{g, dir, one, next}
}

// places are the offsets to damage: all parts of every object's bytes, and what
// is before and behind them.
func (r rotten) places(t *testing.T) map[string][]int64 {
	t.Helper()
	places := map[string][]int64{}
	packs, _ := filepath.Glob(filepath.Join(r.dir, "clone", "objects", "pack", "*.pack"))
	for _, path := range packs {
		p, err := openPack(path)
		if err != nil {
			t.Fatal(err)
		}
		starts := []int64{0, p.bytes - 20, p.bytes}
		entries, err := p.index.Entries()
		if err != nil {
			t.Fatal(err)
		}
		for e, err := entries.Next(); err == nil; e, err = entries.Next() {
			starts = append(starts, int64(e.Offset))
		}
		p.close()
		slices.Sort(starts)
		name, _ := filepath.Rel(r.dir, path)
		for i := range len(starts) - 1 {
			from, to := starts[i], starts[i+1]
			places[name] = append(places[name], from, from+1, from+2, from+3, (from+to)/2, to-2, to-1)
		}
		index := strings.TrimSuffix(name, ".pack") + ".idx"
		info, err := os.Stat(filepath.Join(r.dir, index))
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(0); at < info.Size(); at += 37 {
			places[index] = append(places[index], at)
		}
	}
	if len(packs) < 3 {
		t.Fatalf("%d packs, want 3", len(packs))
	}
	return places
}

// flip flips a bit of a file where it is, for whoever has it open, too.
func flip(t *testing.T, path string, at int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// Rot in the clone is noticed only while the tree is read for rendering. It is
// never the commit's fault: the error says that the device is, and the next Fetch
// makes the clone anew, whether the branch has moved or not.
func TestRotThatIsFoundByReadingIsNotTheCommitsFault(t *testing.T) {
	t.Parallel()
	r := newRotten(t)
	rng := rand.New(rand.NewPCG(1, 2))
	found := 0
	for name, offsets := range r.places(t) {
		for _, at := range offsets {
			bit, running, moved := rng.IntN(8), rng.IntN(2) == 0, rng.IntN(3) == 0
			where := fmt.Sprintf("%s, byte %d, bit %d, running %v, moved %v", name, at, bit, running, moved)
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(r.dir)); err != nil {
				t.Fatal(err)
			}
			s := &Source{}
			if running {
				s = openIn(t, dir, signed(r.git.URL()))
			}
			flip(t, filepath.Join(dir, name), at, bit)
			if !running {
				s = openIn(t, dir, signed(r.git.URL()))
			}
			_, tree, err := s.Accepted()
			if err == nil {
				err = readAll(tree)
				var damaged *DamagedError
				if err != nil && (!errors.As(err, &damaged) || !errors.Is(err, syscall.EIO)) {
					t.Errorf("%s: %v, which does not say that the device is at fault", where, err)
				}
			}
			tip, content := r.one, "1"
			if moved {
				r.git.Run("reset", "-q", "--hard", "next")
				tip, content = r.next, "2"
			}
			if _, _, ferr := s.Fetch(t.Context()); isRefusal(ferr) {
				t.Errorf("%s: fetch: %v", where, ferr)
			}
			fresh := fetch(t, s, tip, content)
			if rerr := readAll(fresh); rerr != nil {
				if _, _, ferr := s.Fetch(t.Context()); ferr != nil {
					t.Errorf("%s: fetch: %v", where, ferr)
				}
				if rerr = readAll(fresh); rerr != nil {
					t.Errorf("%s: after a fetch: %v", where, rerr)
				}
			}
			if err != nil {
				found++
				if notes := s.Mended(); !moved && !strings.Contains(strings.Join(notes, "\n"), "fetched anew") {
					t.Errorf("%s: %v, and then %q", where, err, notes)
				}
			}
			s.Close()
			r.git.Run("reset", "-q", "--hard", r.one)
		}
	}
	if found < 50 {
		t.Errorf("damage was found at %d places only", found)
	}
}

func isRefusal(err error) bool {
	_, refused := errors.AsType[*schema.RefusedError](err)
	return refused
}

// A damaged size of a file that the tip shares with an older commit is not a file
// that is too large.
func TestADamagedSizeRefusesNoCommit(t *testing.T) {
	g := harness.NewGit(t)
	one := g.SignedCommit(map[string]string{"file": "1", "kept": strings.Repeat("kept by the next commit, too\n", 30)})
	s := open(t, signed(g.URL()))
	fetch(t, s, one, "1")
	s.current().mu.Lock()
	p := s.current().packs[0]
	s.current().mu.Unlock()
	id := plumbing.NewHash(g.Run("rev-parse", one+":kept"))
	offset, err := p.index.FindOffset(id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(2) { // the size goes on into what it is the size of: gigabytes
		flip(t, p.path, int64(offset)+1+i, 7)
	}
	if size, err := p.size(id); err != nil || size <= s.Limits.FileBytes {
		t.Fatalf("the size is %d, %v: nothing was damaged", size, err)
	}
	two := g.SignedCommit(file("2"))
	if _, _, err := s.Fetch(t.Context()); isRefusal(err) {
		t.Fatal(err)
	}
	if err := readAll(fetch(t, s, two, "2")); err != nil {
		t.Fatal(err)
	}
}

// While the repository is out of reach the trouble stays what it is, and the
// accepted revision is known.
func TestDamageWhileOfflineIsMendedWhenTheLinkIsBack(t *testing.T) {
	r := newRotten(t)
	s := openIn(t, r.dir, signed(r.git.URL()))
	_, tree, err := s.Accepted()
	if err != nil {
		t.Fatal(err)
	}
	packs, _ := filepath.Glob(filepath.Join(r.dir, "clone", "objects", "pack", "*.pack"))
	for _, path := range packs {
		damageInPlace(t, path)
	}
	away := r.git.Dir + ".away"
	if err := os.Rename(r.git.Dir, away); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := readAll(tree); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "the copy of the repository is damaged: fetched anew when the link is back") {
			t.Fatalf("read: %v", err)
		}
		if _, _, err := s.Fetch(t.Context()); err == nil || isRefusal(err) {
			t.Fatalf("fetch: %v", err)
		}
		if revision, _, _ := s.Accepted(); revision.Commit != r.one {
			t.Fatalf("accepted %s", revision.Commit)
		}
	}
	if err := os.Rename(away, r.git.Dir); err != nil {
		t.Fatal(err)
	}
	fetch(t, s, r.one, "1")
	if err := readAll(tree); err != nil {
		t.Error(err)
	}
}

func damageInPlace(t *testing.T, path string) {
	t.Helper()
	for at := int64(12); at < int64(len(readFile(t, path))); at += 5 {
		flip(t, path, at, 3)
	}
}
