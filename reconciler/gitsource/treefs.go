package gitsource

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// treeFS is one commit's tree as a file system. It reads objects when asked;
// directories it keeps, files it does not. It is safe for concurrent use, and
// stays readable while a newer commit is fetched.
//
// Only files and directories can be read. A symbolic link appears with
// fs.ModeSymlink and a submodule with fs.ModeIrregular, never followed, so that
// whoever walks the tree can refuse them by name.
type treeFS struct {
	objs  objects
	root  plumbing.Hash
	time  time.Time // of the commit: Git keeps none for files
	bound int64     // bytes of one file

	mu    sync.Mutex
	trees map[plumbing.Hash][]entry
}

func newTreeFS(objs objects, c *commit, limits Limits) *treeFS {
	return &treeFS{objs: objs, root: c.tree, time: c.time, bound: limits.FileBytes, trees: map[plumbing.Hash][]entry{}}
}

var (
	_ fs.ReadDirFS  = (*treeFS)(nil)
	_ fs.ReadFileFS = (*treeFS)(nil)
	_ fs.StatFS     = (*treeFS)(nil)
)

// Open opens a file or a directory. What can be opened but not read, because
// it is a link or a submodule, says so when it is read.
func (t *treeFS) Open(name string) (fs.File, error) {
	e, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	if !e.mode.IsDir() {
		return &openFile{fs: t, path: name, entry: e}, nil
	}
	list, err := t.list("open", name, e.id)
	if err != nil {
		return nil, err
	}
	return &openDir{fs: t, entry: e, path: name, left: list}, nil
}

// ReadDir lists a directory by name.
func (t *treeFS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := t.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if !e.mode.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	return t.list("readdir", name, e.id)
}

// ReadFile reads a whole file.
func (t *treeFS) ReadFile(name string) ([]byte, error) {
	e, err := t.find("read", name)
	if err != nil {
		return nil, err
	}
	return t.content(name, e)
}

// Stat describes what name is; it follows nothing.
func (t *treeFS) Stat(name string) (fs.FileInfo, error) {
	e, err := t.find("stat", name)
	if err != nil {
		return nil, err
	}
	return t.info(name, e)
}

// find walks to name, through directories only.
func (t *treeFS) find(op, name string) (entry, error) {
	if !fs.ValidPath(name) {
		return entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	at := entry{name: ".", mode: fs.ModeDir | 0o555, id: t.root}
	if name == "." {
		return at, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if !at.mode.IsDir() {
			return entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		entries, err := t.tree(at.id)
		if err != nil {
			return entry{}, &fs.PathError{Op: op, Path: name, Err: err}
		}
		i, ok := search(entries, part)
		if !ok {
			return entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		at = entries[i]
	}
	return at, nil
}

func (t *treeFS) tree(id plumbing.Hash) ([]entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if entries, ok := t.trees[id]; ok {
		return entries, nil
	}
	entries, err := readTree(t.objs, id, "tree")
	if err != nil {
		return nil, err
	}
	t.trees[id] = entries
	return entries, nil
}

func (t *treeFS) list(op, name string, id plumbing.Hash) ([]fs.DirEntry, error) {
	entries, err := t.tree(id)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	list := make([]fs.DirEntry, len(entries))
	for i, e := range entries {
		list[i] = &dirEntry{fs: t, path: path.Join(name, e.name), entry: e}
	}
	return list, nil
}

// content reads a file's bytes, and refuses what is no file.
func (t *treeFS) content(name string, e entry) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, &fs.PathError{Op: "read", Path: name, Err: err} }
	switch {
	case e.mode.IsDir():
		return fail(errors.New("is a directory"))
	case e.mode&fs.ModeSymlink != 0:
		return fail(errors.New("is a symbolic link, which is not followed"))
	case !e.mode.IsRegular():
		return fail(errors.New("is a submodule, which is not in this repository"))
	}
	size, err := provenSize(t.objs, e.id, t.bound)
	if err != nil {
		return fail(err)
	}
	if size > t.bound {
		return fail(&limitError{what: "bytes of one file", bound: t.bound, have: size})
	}
	kind, raw, err := t.objs.read(e.id)
	if err != nil {
		return fail(err)
	}
	if kind != plumbing.BlobObject {
		return fail(fmt.Errorf("object %s is a %s, not a file", e.id, kind))
	}
	return raw, nil
}

func (t *treeFS) info(name string, e entry) (fs.FileInfo, error) {
	i := fileInfo{entry: e, time: t.time}
	if !e.mode.IsDir() && e.mode&fs.ModeIrregular == 0 {
		size, err := t.objs.size(e.id)
		if err != nil {
			return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
		}
		i.size = size
	}
	return i, nil
}

type fileInfo struct {
	entry
	size int64
	time time.Time
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.size }
func (i fileInfo) Mode() fs.FileMode  { return i.mode }
func (i fileInfo) ModTime() time.Time { return i.time }
func (i fileInfo) IsDir() bool        { return i.mode.IsDir() }
func (i fileInfo) Sys() any           { return nil }

type dirEntry struct {
	fs   *treeFS
	path string
	entry
}

func (d *dirEntry) Name() string               { return d.name }
func (d *dirEntry) IsDir() bool                { return d.mode.IsDir() }
func (d *dirEntry) Type() fs.FileMode          { return d.mode.Type() }
func (d *dirEntry) Info() (fs.FileInfo, error) { return d.fs.info(d.path, d.entry) }
func (d *dirEntry) String() string             { return fs.FormatDirEntry(d) }

// openFile reads its content at the first Read.
type openFile struct {
	fs    *treeFS
	path  string
	entry entry
	body  *bytes.Reader
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.fs.info(f.path, f.entry) }
func (f *openFile) Close() error               { return nil }

func (f *openFile) Read(p []byte) (int, error) {
	if f.body == nil {
		raw, err := f.fs.content(f.path, f.entry)
		if err != nil {
			return 0, err
		}
		f.body = bytes.NewReader(raw)
	}
	return f.body.Read(p)
}

type openDir struct {
	fs    *treeFS
	path  string
	entry entry
	left  []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.fs.info(d.path, d.entry) }
func (d *openDir) Close() error               { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.path, Err: errors.New("is a directory")}
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(d.left) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(d.left) {
		n = len(d.left)
	}
	list := d.left[:n:n]
	d.left = d.left[n:]
	return list, nil
}
