package gitsource

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
)

// entry is one line of a tree object.
type entry struct {
	name string
	mode fs.FileMode
	id   plumbing.Hash
}

// parseTree reads a tree object and sorts it by name, as fs.FS wants it (Git
// itself sorts a directory as if its name ended in a slash).
func parseTree(raw []byte) ([]entry, error) {
	entries := make([]entry, 0, len(raw)/40)
	for len(raw) > 0 {
		head, rest, found := bytes.Cut(raw, []byte{0})
		if !found || len(rest) < len(plumbing.Hash{}) {
			return nil, errors.New("tree object ends within an entry")
		}
		modeText, name, found := strings.Cut(string(head), " ")
		if !found {
			return nil, errors.New("tree object: entry without a name")
		}
		if err := checkFileName(name); err != nil {
			return nil, err
		}
		mode, err := parseMode(modeText)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		e := entry{name: name, mode: mode}
		copy(e.id[:], rest)
		entries = append(entries, e)
		raw = rest[len(e.id):]
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(entries); i++ {
		if entries[i].name == entries[i-1].name {
			return nil, fmt.Errorf("two entries named %q", entries[i].name)
		}
	}
	return entries, nil
}

// checkFileName refuses what cannot be named in an fs.FS, or means something
// else to a tool that checks the repository out.
func checkFileName(name string) error {
	switch {
	case !utf8.ValidString(name):
		return fmt.Errorf("file name %q is not UTF-8", name)
	case name == "" || name == "." || name == ".." || strings.EqualFold(name, ".git") || strings.Contains(name, "/"):
		return fmt.Errorf("file name %q is not allowed", name)
	}
	return nil
}

// parseMode turns Git's mode into Go's. Everything but files and directories
// keeps a type that no reader takes for a file: a symbolic link is
// fs.ModeSymlink, a submodule fs.ModeIrregular.
func parseMode(s string) (fs.FileMode, error) {
	bits, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		return 0, fmt.Errorf("mode %q is not octal", s)
	}
	switch bits & 0o170000 {
	case 0o040000:
		return fs.ModeDir | 0o555, nil
	case 0o100000:
		return 0o444 | fs.FileMode(bits)&0o111, nil
	case 0o120000:
		return fs.ModeSymlink | 0o444, nil
	default:
		return fs.ModeIrregular | 0o444, nil
	}
}

// survey walks the whole tree under root: every directory is read, every file
// is there, and nothing exceeds the limits. Trees that share subtrees are
// counted along each path, so a tree that unfolds without end is refused.
func survey(objs objects, root plumbing.Hash, limits Limits) error {
	left := limits.Entries
	var walk func(id plumbing.Hash, dir string, depth int) error
	walk = func(id plumbing.Hash, dir string, depth int) error {
		if depth > limits.Depth {
			return &limitError{what: "directories above " + dir, bound: int64(limits.Depth)}
		}
		entries, err := readTree(objs, id, dir)
		if err != nil {
			return err
		}
		if left -= len(entries); left < 0 {
			return &limitError{what: "files and directories in the tree", bound: int64(limits.Entries)}
		}
		for _, e := range entries {
			name := path.Join(dir, e.name)
			switch {
			case e.mode.IsDir():
				err = walk(e.id, name, depth+1)
			case e.mode&fs.ModeIrregular != 0: // a submodule's commit is not in this repository
			default:
				err = checkFile(objs, e.id, name, limits.FileBytes)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return walk(root, ".", 0)
}

func checkFile(objs objects, id plumbing.Hash, name string, bound int64) error {
	size, err := provenSize(objs, id, bound)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if size > bound {
		return &limitError{what: "bytes of the file " + name, bound: bound, have: size}
	}
	return nil
}

// provenSize is the size of an object. Where a pack says that it is beyond bound,
// the object is read: a size is covered by no hash, and a damaged one is not the
// commit's fault.
func provenSize(objs objects, id plumbing.Hash, bound int64) (int64, error) {
	size, err := objs.size(id)
	if err != nil || size <= bound {
		return size, err
	}
	_, raw, err := objs.read(id)
	return int64(len(raw)), err
}

func readTree(objs objects, id plumbing.Hash, dir string) ([]entry, error) {
	kind, raw, err := objs.read(id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if kind != plumbing.TreeObject {
		return nil, fmt.Errorf("%s: object %s is a %s, not a tree", dir, id, kind)
	}
	entries, err := parseTree(raw)
	if err != nil {
		return nil, &malformedError{fmt.Errorf("%s: %w", dir, err)}
	}
	return entries, nil
}

// malformedError says that an object is what its id says, and nonsense: the
// commit is to blame, not the disk.
type malformedError struct{ err error }

func (e *malformedError) Error() string { return e.err.Error() }
func (e *malformedError) Unwrap() error { return e.err }

// search finds name among entries sorted by name.
func search(entries []entry, name string) (int, bool) {
	return slices.BinarySearchFunc(entries, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
}
