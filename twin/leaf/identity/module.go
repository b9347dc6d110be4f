package identity

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ModulesDir is where in the run directory the modules' directories are; modules do
// not see it itself. Names in it that have a dot are of files that are being made.
const ModulesDir = "modules"

// Provide makes the directory of a module with a seed in it, and gives it to the
// user that the module runs as. One that can be used is kept.
func Provide(runDir, module string, uid, gid uint32) error {
	dir := ModuleDir(runDir, module)
	if _, err := ModuleKey(runDir, module); err != nil {
		if !errors.Is(err, ErrNoSeed) && !errors.Is(err, ErrBadSeed) {
			return err
		}
		if err := makeModuleDir(dir); err != nil {
			return err
		}
	}
	return own(dir, uid, gid)
}

// Since is when the seed of a module was made, by the device's clock.
func Since(runDir, module string) (time.Time, error) {
	info, err := os.Lstat(filepath.Join(ModuleDir(runDir, module), File))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// ModuleDir is the directory of a module, which it sees.
func ModuleDir(runDir, module string) string { return filepath.Join(runDir, ModulesDir, module) }

// ModuleKey returns the public key of a module's seed. An error is ErrNoSeed,
// ErrBadSeed, or one of reading the file.
func ModuleKey(runDir, module string) (string, error) {
	key, err := ReadSeed(filepath.Join(ModuleDir(runDir, module), File))
	if err != nil {
		return "", err
	}
	defer key.Wipe()
	return key.PublicKey()
}

// makeModuleDir makes a module's directory with a new seed in it. It appears
// whole or not at all.
func makeModuleDir(dir string) error {
	temp := filepath.Join(filepath.Dir(dir), "new."+filepath.Base(dir)) // no module's name has a dot
	if err := errors.Join(os.RemoveAll(temp), os.RemoveAll(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(temp, 0o700); err != nil {
		return err
	}
	key, err := WriteSeed(filepath.Join(temp, File), 0o400)
	if err != nil {
		return err
	}
	key.Wipe()
	return os.Rename(temp, dir)
}

// own gives a module's directory to the user that the module runs as, and to
// nobody else. The file is the last to change, so that the module never sees it
// as another's.
func own(dir string, uid, gid uint32) error {
	seed := filepath.Join(dir, File)
	return errors.Join(
		os.Lchown(dir, int(uid), int(gid)), os.Chmod(dir, 0o500),
		os.Lchown(seed, int(uid), int(gid)), os.Chmod(seed, 0o400))
}

// Forget removes the run directories of all modules but these.
func Forget(runDir string, keep map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(runDir, ModulesDir))
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if err := os.RemoveAll(ModuleDir(runDir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// Replace puts a new seed in the place of a module's, for the same owner. It
// is made where the module does not see it.
func Replace(runDir, module string) error {
	path := filepath.Join(ModuleDir(runDir, module), File)
	var owner unix.Stat_t
	if err := unix.Lstat(path, &owner); err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	temp := filepath.Join(runDir, ModulesDir, "new."+module+".nk") // no module's name has a dot
	if err := removed(temp); err != nil {
		return err
	}
	key, err := WriteSeed(temp, 0o400)
	if err == nil {
		key.Wipe()
		err = os.Lchown(temp, int(owner.Uid), int(owner.Gid))
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, removed(temp))
	}
	return nil
}

// removed removes a file that need not be there.
func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
