package identity

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

// PrepareStateDir makes the state directory, and sees to it that nobody else can
// read or change what is kept in these folders of it.
func PrepareStateDir(stateDir string, folders ...string) error {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	for _, dir := range append([]string{""}, folders...) {
		real, err := filepath.EvalSymlinks(filepath.Join(stateDir, dir)) // another disk, say
		if err == nil {
			err = ours(real)
		}
		if err == nil && dir != "" {
			err = os.Chmod(real, 0o700)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	return nil
}

// runDirSize bounds the tmpfs that is mounted for the run directory.
const runDirSize = "16m"

// PrepareRunDir makes sure that the run directory is in memory and that nobody
// else can write to it: seeds must not reach a disk.
func PrepareRunDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	memory, err := inMemory(dir)
	if err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	if !memory {
		err := unix.Mount("tidemark", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size="+runDirSize)
		if err != nil {
			return fmt.Errorf("run directory %s is on a disk, where seeds must not be, and mounting a tmpfs there says %w: set runDir to a path below /run, or run as root", dir, err)
		}
	}
	if err := ours(dir); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	modules := filepath.Join(dir, ModulesDir)
	if err := os.Mkdir(modules, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("run directory: %w", err)
	}
	if err := ours(modules); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	return os.Chmod(modules, 0o700)
}

// inMemory reports whether a directory is on a file system that has no disk.
func inMemory(dir string) (bool, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	magic := uint32(s.Type) // signed, and of 32 bits on some platforms
	return magic == unix.TMPFS_MAGIC || magic == unix.RAMFS_MAGIC, nil
}
