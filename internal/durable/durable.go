// Package durable keeps small files so that a power cut, a full disk or bit rot
// leaves either the old content or the new one, or something that is noticed.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
)

// Write replaces the file at path with data and this mode. When it returns nil,
// a power cut cannot take it back; when it fails, the file is as it was before,
// and nothing is left beside it.
func Write(path string, data []byte, mode fs.FileMode) error {
	if err := Replace(path, data, mode, (*os.File).Sync); err != nil {
		return err
	}
	failpoint.Reach("durable.renamed")
	return SyncDir(filepath.Dir(path))
}

// Replace is Write for a caller that syncs in its own way, or not at all: sync
// gets the complete file before it is renamed, and the directory is not synced.
func Replace(path string, data []byte, mode fs.FileMode, sync func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = sync(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		failpoint.Reach("durable.written")
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name())) // which gives back its space on a full disk
	}
	return nil
}

// SyncDir makes what was created, renamed or removed in dir survive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ErrTooLarge is what Read says of a file beyond its bound.
var ErrTooLarge = errors.New("too large")

// Read reads a file of at most most bytes. A larger one is ErrTooLarge.
func Read(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("read %s: %w: larger than %d bytes", path, ErrTooLarge, most)
	}
	return data, nil
}

// SetAside renames a file or directory that cannot be used, so that it is not
// met again, and says under which name it is kept. One that was set aside before
// goes: a disk is not filled by damage.
func SetAside(path string) (kept string, err error) {
	dir, base := filepath.Split(filepath.Clean(path))
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), base+brokenInfix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return "", err
			}
		}
	}
	kept = fmt.Sprintf("%s%s%d", filepath.Join(dir, base), brokenInfix, time.Now().UnixNano())
	if err := os.Rename(path, kept); err != nil {
		return "", err
	}
	return kept, SyncDir(filepath.Dir(path))
}

// brokenInfix stands between the name of what was set aside and a number.
const brokenInfix = ".broken-"
