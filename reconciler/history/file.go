package history

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// version of the files. Fields may be added without a new one.
const version = 1

// envelope is a file: what it says, and what proves that it is whole.
type envelope struct {
	Version int             `json:"version"`
	SHA256  string          `json:"sha256"` // of Content's bytes, hexadecimal
	Content json.RawMessage `json:"content"`
}

// envelopeBytes is what an envelope takes beside its content, at most.
const envelopeBytes = 256

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

// open takes the content out of an envelope.
func open(b []byte, v any) error {
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return err
	}
	if e.Version != version {
		return fmt.Errorf("version %d, want %d", e.Version, version)
	}
	if sum := sha256.Sum256(e.Content); hex.EncodeToString(sum[:]) != e.SHA256 {
		return errors.New("checksum does not match")
	}
	return decode(e.Content, v)
}

// seal puts v into an envelope.
func seal(v any) ([]byte, error) {
	content, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content)
	return json.Marshal(envelope{version, hex.EncodeToString(sum[:]), content})
}

// write replaces the file at path.
func write(path string, v any) error {
	b, err := seal(v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.Write(path, b, 0o600)
}
