package leaf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ours makes sure that nobody else can put files into a directory of ours. One
// that is open to others is closed; what somebody else may have put there
// meanwhile is not touched, and refused.
func ours(dir string) error {
	var s unix.Stat_t
	if err := unix.Lstat(dir, &s); err != nil {
		return &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	switch {
	case s.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is not a directory", dir)
	case int(s.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, want %d: chown it", dir, s.Uid, os.Geteuid())
	case s.Mode&0o022 == 0:
		return nil
	}
	if err := os.Chmod(dir, fs.FileMode(s.Mode&0o755)); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var s unix.Stat_t
		if err := unix.Lstat(path, &s); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		if int(s.Uid) != os.Geteuid() {
			return fmt.Errorf("%s was open to others, and user %d has put %s there: remove that", dir, s.Uid, e.Name())
		}
	}
	return nil
}

// prepareStateDir makes the state directory, and sees to it that nobody else can
// read or change what the leaf keeps there.
func prepareStateDir(c Config) error {
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	for _, dir := range []string{c.StateDir, jetStreamDir(c), filepath.Join(c.StateDir, twinsDir)} {
		real, err := filepath.EvalSymlinks(dir) // another disk, say
		if err == nil {
			err = ours(real)
		}
		if err == nil && dir != c.StateDir {
			err = os.Chmod(real, 0o700)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	return nil
}
