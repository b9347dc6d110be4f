package schema

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Bounds on what one commit's definitions may be. A repository may hold more:
// only .cue files count.
const (
	MaxTreeFiles   = 20_000   // .cue files
	MaxTreeBytes   = 32 << 20 // of all .cue files
	MaxFileBytes   = 1 << 20  // of one
	maxTreeEntries = 500_000  // of any kind, looked at
	maxPathBytes   = 1024
)

// Tree is the .cue files of one commit, by slash-separated path. It is all
// that evaluation sees of the repository.
type Tree map[string][]byte

// ReadTree reads the .cue files of tree. What would make the result depend on
// anything but the commit is refused with an *InvalidError: symbolic links in
// the place of definitions, submodules, Git LFS pointers, replacements of
// modules; and so is a tree beyond the bounds.
func ReadTree(ctx context.Context, tree fs.FS) (Tree, error) {
	r := treeReader{fsys: tree, files: Tree{}}
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return r.visit(name, entry)
	})
	if err != nil {
		return nil, err
	}
	if _, ok := r.files["cue.mod/module.cue"]; !ok {
		return nil, invalidFile("cue.mod/module.cue", "missing: `tidemark init` writes one; without it the layers above a device are not found")
	}
	return r.files, nil
}

// treeReader is the state of one ReadTree.
type treeReader struct {
	fsys    fs.FS
	files   Tree
	entries int
	bytes   int
}

func (r *treeReader) visit(name string, entry fs.DirEntry) error {
	if r.entries++; r.entries > maxTreeEntries {
		return invalid("the repository has more than %d files and directories", maxTreeEntries)
	}
	if len(name) > maxPathBytes {
		return invalidFile(name[:64]+"…", "the path is longer than %d bytes", maxPathBytes)
	}
	base := path.Base(name)
	isCUE := strings.HasSuffix(base, ".cue") && base != ".cue"
	switch mode := entry.Type(); {
	case entry.IsDir():
		return r.visitDir(name, base)
	case mode&fs.ModeSymlink != 0:
		if isCUE || base == "cue.mod" || strings.HasPrefix(name, "cue.mod/") {
			return invalidFile(name, "a symbolic link is not followed: put the file here")
		}
		return nil
	case mode&fs.ModeIrregular != 0:
		return invalidFile(name, "a submodule is not fetched: put its definitions into this repository, or under cue.mod/pkg")
	case !mode.IsRegular() || !isCUE:
		return nil
	}
	if strings.ContainsAny(name, ":\\") {
		return invalidFile(name, "the characters : and \\ cannot be in the path of a definition")
	}
	if name == "cue.mod/local-module.cue" {
		return invalidFile(name, "replaces modules on one machine: do not commit it")
	}
	return r.read(name)
}

func (r *treeReader) visitDir(name, base string) error {
	if base == ".git" {
		return fs.SkipDir
	}
	if base == "cue.mod" && name != "cue.mod" {
		return invalidFile(name, "a CUE module within the repository's: only its root has a cue.mod")
	}
	return nil
}

func (r *treeReader) read(name string) error {
	if len(r.files) == MaxTreeFiles {
		return invalid("the repository has more than %d .cue files", MaxTreeFiles)
	}
	f, err := r.fsys.Open(name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > MaxFileBytes {
		return invalidFile(name, "larger than %d bytes", MaxFileBytes)
	}
	if r.bytes += len(b); r.bytes > MaxTreeBytes {
		return invalid("the repository's .cue files are larger than %d bytes together", MaxTreeBytes)
	}
	if bytes.HasPrefix(b, []byte("version https://git-lfs")) {
		return invalidFile(name, "a Git LFS pointer, not a definition: keep .cue files out of LFS (.gitattributes)")
	}
	r.files[name] = b
	return nil
}
