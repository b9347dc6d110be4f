package specification

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tidemark-edge/tidemark/containerd/account"
	"github.com/tidemark-edge/tidemark/schema"
)

// volume makes the directory of a named volume, if need be, and gives it to
// the user. A volume that belonged to another user is given over with all that
// is in it: without capabilities a module could not read what its former
// version wrote.
func (h Host) volume(module, name string, u account.IDs) (string, error) {
	if err := schema.CheckName(name); err != nil {
		return "", fmt.Errorf("volume: %w", err)
	}
	parent := filepath.Join(h.StateDir, "volumes", module)
	if err := makeDir(parent); err != nil {
		return "", fmt.Errorf("volume %s: %w", name, err)
	}
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o750); err != nil && !os.IsExist(err) {
		return "", fmt.Errorf("volume %s: %w", name, err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("volume %s: %w", name, err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("volume %s: %s is not a directory", name, dir)
	}
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid == u.UID && owner.Gid == u.GID {
		return dir, nil
	}
	if err := giveOver(dir, u); err != nil {
		return "", fmt.Errorf("volume %s: %w", name, err)
	}
	return dir, nil
}

// giveOver changes the owner of everything in dir, and of dir last: were it
// interrupted, the next Start would begin again. It follows no symbolic link.
func giveOver(dir string, u account.IDs) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		return root.Lchown(path, int(u.UID), int(u.GID))
	})
	if err != nil {
		return err
	}
	return root.Lchown(".", int(u.UID), int(u.GID))
}
