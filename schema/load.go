package schema

import (
	"context"
	"io/fs"
	"path"
)

// Load evaluates what tree defines for a device. The device's directory is
// the one of its name; the files of the same package in the directories above
// unify with it, and the result with the #Device that this package embeds,
// whatever the repository vendors or imports. It uses no network and no file
// outside tree. What is wrong with the definitions is an *InvalidError.
//
// CUE has no bound on what an evaluation costs: where the author of tree is not
// the caller, use package schema/sandbox.
func Load(ctx context.Context, tree fs.FS, device string) (Desired, error) {
	return LoadAt(ctx, tree, device, "")
}

// LoadAt is Load for a device whose directory is known: dir is slash-separated
// and relative to tree's root, and need not be named like the device. An empty
// dir is found by name.
func LoadAt(ctx context.Context, tree fs.FS, device, dir string) (Desired, error) {
	t, err := ReadTree(ctx, tree)
	if err != nil {
		return Desired{}, err
	}
	return t.Load(ctx, device, dir)
}

// LoadAll evaluates every device that tree defines, in the order of their
// directories. The error is about the tree as a whole; each device has its own.
func LoadAll(ctx context.Context, tree fs.FS) ([]Entry, error) {
	t, err := ReadTree(ctx, tree)
	if err != nil {
		return nil, err
	}
	return t.Devices(ctx)
}

// Entry is one device of a fleet repository.
type Entry struct {
	Name     string         // of the device, and of its directory
	Dir      string         // relative to the root
	Identity string         // public NKey; empty where none is named
	Tags     map[string]any // as defined
	Err      error          // why the definition is not acceptable; then the rest but Name and Dir is empty
}

// Load is LoadAt for a tree that was read before.
func (t Tree) Load(ctx context.Context, device, dir string) (Desired, error) {
	if err := CheckName(device); err != nil {
		return Desired{}, err
	}
	if dir == "" {
		var err error
		if dir, err = t.deviceDir(device); err != nil {
			return Desired{}, err
		}
	}
	if !fs.ValidPath(dir) {
		return Desired{}, invalid("directory %q: want a slash-separated path below the repository's root", dir)
	}
	if err := ctx.Err(); err != nil {
		return Desired{}, err
	}
	return t.evaluate(device, dir)
}

// Devices is LoadAll for a tree that was read before.
func (t Tree) Devices(ctx context.Context) ([]Entry, error) {
	entries := []Entry{}
	for _, dir := range t.DeviceDirs() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		entries = append(entries, t.Device(dir))
	}
	return entries, nil
}

// Device evaluates the device that one of DeviceDirs defines. A device that
// several directories define is refused in each: nobody could say which one
// counts.
func (t Tree) Device(dir string) Entry {
	e := Entry{Name: path.Base(dir), Dir: dir}
	if err := CheckName(e.Name); err != nil {
		e.Err = invalidFile(dir, "defines a device, which cannot be named so: %v", err)
	} else if _, err := t.deviceDir(e.Name); err != nil {
		e.Err = err
	} else if desired, err := t.evaluate(e.Name, dir); err != nil {
		e.Err = err
	} else {
		e.Identity, e.Tags = desired.Identity, desired.Tags
	}
	return e
}
