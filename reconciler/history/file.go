package history

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// version of the files. Fields may be added without a new one.
const version = 1

// read reads into v what write wrote; no file leaves v as it is. A file that
// cannot be used is set aside and named by the error.
func read(path string, most int64, v any) error {
	b, err := durable.Read(path, most)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = open(b, v)
	}
	if err == nil {
		return nil
	}
	aside, asideErr := durable.SetAside(path)
	if asideErr != nil {
		return fmt.Errorf("%s: %w; set it aside: %w", path, err, asideErr)
	}
	return fmt.Errorf("%s: %w; it is set aside as %s", path, err, filepath.Base(aside))
}

// open reads what is sealed.
func open(b []byte, v any) error {
	content, err := durable.Unseal(version, b)
	if err != nil {
		return err
	}
	return decode(content, v)
}

// write replaces the file at path.
func write(path string, v any) error {
	b, err := durable.Seal(version, v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.Write(path, b, 0o600)
}
