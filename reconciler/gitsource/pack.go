package gitsource

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// deltaCache bounds the delta bases that one open pack keeps in memory.
const deltaCache = cache.MiByte

// pack is one pack file, open for reading. Its file stays open, so that a
// pack which was replaced meanwhile can be read to the end.
type pack struct {
	path  string // of the pack file; its index is beside it, once installed
	id    plumbing.Hash
	bytes int64
	index *idxfile.MemoryIndex

	mu   sync.Mutex // a packfile.Packfile seeks
	file *os.File
	body *packfile.Packfile
}

// packHandle is an os.File as go-git wants it; nobody locks or writes a pack.
type packHandle struct{ *os.File }

func (packHandle) Lock() error   { return nil }
func (packHandle) Unlock() error { return nil }

// openPack opens an installed pack.
func openPack(path string) (_ *pack, err error) {
	defer recoverAs(&err)
	index := idxfile.NewMemoryIndex()
	f, err := os.Open(strings.TrimSuffix(path, ".pack") + ".idx")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// The decoder holds the declared counts against the file's size, so it must
	// see the size through the buffer.
	if err := idxfile.NewDecoder(sizedReader{bufio.NewReader(f), info}).Decode(index); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return attach(path, index)
}

type sizedReader struct {
	io.Reader
	info os.FileInfo
}

func (r sizedReader) Stat() (os.FileInfo, error) { return r.info, nil }

func attach(path string, index *idxfile.MemoryIndex) (*pack, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	p := &pack{path: path, id: index.PackfileChecksum, bytes: info.Size(), index: index, file: f}
	p.body = packfile.NewPackfileWithCache(index, nil, packHandle{f}, cache.NewObjectLRU(deltaCache), 0)
	return p, nil
}

func (p *pack) has(id plumbing.Hash) bool {
	ok, _ := p.index.Contains(id)
	return ok
}

func (p *pack) read(id plumbing.Hash) (kind plumbing.ObjectType, raw []byte, err error) {
	defer recoverAs(&err)
	if !p.has(id) {
		return plumbing.InvalidObject, nil, fmt.Errorf("%w: %s", errMissing, id)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	obj, err := p.body.Get(id)
	if err != nil {
		return plumbing.InvalidObject, nil, fmt.Errorf("object %s in %s: %w", id, filepath.Base(p.path), err)
	}
	r, err := obj.Reader()
	if err != nil {
		return plumbing.InvalidObject, nil, err
	}
	defer r.Close()
	raw = make([]byte, 0, min(obj.Size(), 1<<20))
	buf := bytes.NewBuffer(raw)
	if _, err := buf.ReadFrom(r); err != nil {
		return plumbing.InvalidObject, nil, fmt.Errorf("object %s in %s: %w", id, filepath.Base(p.path), err)
	}
	if plumbing.ComputeHash(obj.Type(), buf.Bytes()) != id {
		return plumbing.InvalidObject, nil, fmt.Errorf("object %s in %s: its content has another hash", id, filepath.Base(p.path))
	}
	return obj.Type(), buf.Bytes(), nil
}

func (p *pack) size(id plumbing.Hash) (size int64, err error) {
	defer recoverAs(&err)
	offset, err := p.index.FindOffset(id)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", errMissing, id)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	size, err = p.body.GetSizeByOffset(offset)
	if err != nil {
		return 0, fmt.Errorf("object %s in %s: %w", id, filepath.Base(p.path), err)
	}
	return size, nil
}

// commits reads every commit object in the pack, of at most max bytes together.
func (p *pack) commits(max int64) (found map[plumbing.Hash]*commit, err error) {
	defer recoverAs(&err)
	p.mu.Lock()
	defer p.mu.Unlock()
	iter, err := p.body.GetByType(plumbing.CommitObject)
	if err != nil {
		return nil, err
	}
	defer iter.Close()
	found = map[plumbing.Hash]*commit{}
	for {
		obj, err := iter.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if max -= obj.Size(); max < 0 {
			return nil, &limitError{what: "bytes of commit objects in one transfer", bound: maxGraphBytes}
		}
		r, err := obj.Reader()
		if err != nil {
			return nil, err
		}
		raw, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return nil, err
		}
		c, err := parseCommit(raw)
		if err != nil {
			return nil, &malformedError{err}
		}
		found[plumbing.ComputeHash(plumbing.CommitObject, raw)] = c
	}
}

func (p *pack) close() { p.file.Close() }

// discard removes a pack, installed or not.
func (p *pack) discard() {
	p.close()
	os.Remove(p.path)
	os.Remove(strings.TrimSuffix(p.path, ".pack") + ".idx")
}

// recoverAs turns a panic of a decoder over a damaged file into an error:
// go-git indexes into what it reads from disk.
func recoverAs(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("decoder gave up: %v", r)
	}
}
