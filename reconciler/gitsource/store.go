package gitsource

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// store is a bare Git repository of packs. It is laid out as Git does it, so
// that `git --git-dir=… log` works for a person; it is shallow, with the
// accepted commits in full and nothing below them.
//
// A transfer lands in incoming/ first and is renamed into place whole, index
// before pack, so that whatever is interrupted leaves the store as it was.
type store struct {
	dir string

	mu    sync.RWMutex
	packs []*pack
	fault error // what could not be opened; nil for a sound store
}

// openStore opens the store in dir, makes it where there is none, and clears
// away what an interrupted transfer left.
func openStore(dir string) (*store, error) {
	if err := makeDirs(dir); err != nil {
		return nil, fmt.Errorf("open the clone: %w", err)
	}
	const config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
	if err := writeMissing(filepath.Join(dir, "config"), config); err != nil {
		return nil, fmt.Errorf("open the clone: %w", err)
	}
	if err := clearDir(filepath.Join(dir, "incoming")); err != nil {
		return nil, fmt.Errorf("open the clone: %w", err)
	}
	s := &store{dir: dir}
	s.clearOrphans()
	paths, err := filepath.Glob(filepath.Join(s.packDir(), "*.pack"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		p, err := openPack(path)
		if err != nil {
			s.fault = errors.Join(s.fault, err)
			continue
		}
		s.packs = append(s.packs, p)
	}
	return s, nil
}

// makeDirs makes what directories a store has, and has them survive a power cut.
func makeDirs(dir string) error {
	for _, d := range []string{"objects/pack", "objects/info", "refs/heads", "incoming"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	for _, d := range []string{filepath.Join(dir, "objects"), dir, filepath.Dir(dir)} {
		if err := durable.SyncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// clearOrphans removes a pack or an index that is without the other: one was
// renamed into place when the power went.
func (s *store) clearOrphans() {
	for kind, other := range map[string]string{".idx": ".pack", ".pack": ".idx"} {
		paths, _ := filepath.Glob(filepath.Join(s.packDir(), "*"+kind))
		for _, path := range paths {
			if _, err := os.Lstat(strings.TrimSuffix(path, kind) + other); os.IsNotExist(err) {
				os.Remove(path)
			}
		}
	}
}

func writeMissing(path, content string) error {
	if info, err := os.Stat(path); err == nil && info.Size() == int64(len(content)) {
		return nil
	}
	return replaceHint(path, []byte(content))
}

func clearDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

func (s *store) packDir() string  { return filepath.Join(s.dir, "objects", "pack") }
func (s *store) incoming() string { return filepath.Join(s.dir, "incoming") }

func (s *store) all() layers {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := make(layers, 0, len(s.packs))
	for _, p := range slices.Backward(s.packs) { // the newest holds what is asked for most
		l = append(l, p)
	}
	return l
}

func (s *store) read(id plumbing.Hash) (plumbing.ObjectType, []byte, error) { return s.all().read(id) }
func (s *store) size(id plumbing.Hash) (int64, error)                       { return s.all().size(id) }

// install makes a received pack part of the store, durably.
func (s *store) install(p *pack) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, have := range s.packs {
		if have.id == p.id { // the same objects, received once more
			p.discard()
			return nil
		}
	}
	base := filepath.Join(s.packDir(), "pack-"+p.id.String())
	var index bytes.Buffer
	if _, err := idxfile.NewEncoder(&index).Encode(p.index); err != nil {
		return fmt.Errorf("index the transfer: %w", err)
	}
	if err := durable.Replace(base+".idx", index.Bytes(), 0o600, (*os.File).Sync); err != nil {
		return fmt.Errorf("store the transfer: %w", err)
	}
	if err := p.file.Sync(); err != nil {
		return fmt.Errorf("store the transfer: %w", err)
	}
	if err := os.Rename(p.path, base+".pack"); err != nil {
		return fmt.Errorf("store the transfer: %w", err)
	}
	p.path = base + ".pack"
	if err := durable.SyncDir(s.packDir()); err != nil {
		return fmt.Errorf("store the transfer: %w", err)
	}
	s.packs = append(s.packs, p) // not before it stays: who fails here discards it
	return nil
}

// point writes the branch and the shallow boundary, for Git's own tools and
// as a second copy of what was accepted. Nothing depends on it, so it does not
// wait for the disk.
func (s *store) point(branch string, at plumbing.Hash, boundary []plumbing.Hash) error {
	var shallow strings.Builder
	for _, id := range boundary {
		fmt.Fprintln(&shallow, id)
	}
	ref := filepath.Join(s.dir, "refs", "heads", filepath.FromSlash(branch))
	if err := os.MkdirAll(filepath.Dir(ref), 0o700); err != nil {
		return fmt.Errorf("write the branch: %w", err)
	}
	for _, f := range []struct{ path, content string }{
		{filepath.Join(s.dir, "shallow"), shallow.String()},
		{filepath.Join(s.dir, "HEAD"), "ref: refs/heads/" + branch + "\n"},
		{ref, at.String() + "\n"},
	} {
		if err := replaceHint(f.path, []byte(f.content)); err != nil {
			return fmt.Errorf("write the branch: %w", err)
		}
	}
	return nil
}

// pointed is what point wrote last, the zero hash where that cannot be read.
func (s *store) pointed(branch string) plumbing.Hash {
	raw, err := durable.Read(filepath.Join(s.dir, "refs", "heads", filepath.FromSlash(branch)), 64)
	text := strings.TrimSpace(string(raw))
	if err != nil || !plumbing.IsHash(text) {
		return plumbing.ZeroHash
	}
	return plumbing.NewHash(text)
}

// boundary lists the commits that are here and whose parents are not.
func (s *store) boundary() ([]plumbing.Hash, error) {
	s.mu.RLock()
	packs := slices.Clone(s.packs)
	s.mu.RUnlock()
	known := map[plumbing.Hash]*commit{}
	for _, p := range packs {
		found, err := p.commits(maxGraphBytes)
		if err != nil {
			return nil, err
		}
		for id, c := range found {
			known[id] = c
		}
	}
	var cut []plumbing.Hash
	for id, c := range known {
		if slices.ContainsFunc(c.parents, func(p plumbing.Hash) bool { return known[p] == nil }) {
			cut = append(cut, id)
		}
	}
	slices.SortFunc(cut, func(a, b plumbing.Hash) int { return bytes.Compare(a[:], b[:]) })
	return cut, nil
}

// crowded reports whether the packs should be written anew as one.
func (s *store) crowded(limits Limits) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var total int64
	for _, p := range s.packs {
		total += p.bytes
	}
	return len(s.packs) > limits.Packs || total > 2*limits.PackBytes
}

// compact writes the commits keep, each with its whole tree, as one pack, and
// removes all others.
func (s *store) compact(keep []plumbing.Hash, limits Limits) error {
	var ids []plumbing.Hash
	seen := map[plumbing.Hash]bool{}
	for _, id := range keep {
		c, err := readCommit(s, id)
		if err != nil {
			return fmt.Errorf("compact the clone: %w", err)
		}
		tree, err := closure(s, c.tree, seen, limits)
		if err != nil {
			return fmt.Errorf("compact the clone: %w", err)
		}
		ids = append(append(ids, id), tree...)
	}
	p, err := s.copyIn(ids, limits)
	if err != nil {
		return fmt.Errorf("compact the clone: %w", err)
	}
	old := s.all()
	if err := s.install(p); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packs = slices.DeleteFunc(s.packs, func(have *pack) bool { return have.id != p.id })
	for _, o := range old {
		if gone := o.(*pack); gone.id != p.id {
			// The file stays open for whoever still reads; the collector closes it.
			os.Remove(gone.path)
			os.Remove(strings.TrimSuffix(gone.path, ".pack") + ".idx")
		}
	}
	return nil
}

func (s *store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.packs {
		p.close()
	}
	s.packs = nil
}
