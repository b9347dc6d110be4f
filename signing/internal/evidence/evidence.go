// Package evidence keeps the signatures that were accepted for images, so that
// a device without network can verify them again.
//
// One file holds one image's signature, as it came from the registry: it is
// not a verdict, and whoever reads it verifies it again. The file is written to
// a temporary name, synced and renamed, and starts with a checksum of the rest.
// A file that is broken is set aside and reported, once.
package evidence

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// What Material.Format may say; schema.Evidence.Format shows it.
const (
	FormatCosign = "cosign-signature" // Payload and Signature
	FormatBundle = "sigstore-bundle"  // Bundle
)

// MaxBlob bounds each of a Material's byte fields.
const MaxBlob = 1 << 20

// maxFile bounds a stored file: three fields in base64, and some room.
const maxFile = 5 << 20

// maxBroken is how many broken files are kept for a person to look at.
const maxBroken = 16

// Material is one signature, raw.
type Material struct {
	Format    string    `json:"format"`              // a Format constant
	Payload   []byte    `json:"payload,omitempty"`   // the signed simple signing document
	Signature []byte    `json:"signature,omitempty"` // over Payload
	Bundle    []byte    `json:"bundle,omitempty"`    // Sigstore bundle, JSON
	Verified  time.Time `json:"verified"`            // when the device first accepted it
}

// BrokenError says that a stored file could not be used and was set aside.
type BrokenError struct {
	Aside string // where it is now
	Err   error  // what is wrong with it
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("stored evidence is broken, set aside as %s: %v", e.Aside, e.Err)
}

func (e *BrokenError) Unwrap() error { return e.Err }

// Store is a directory of evidence. Its methods may be called concurrently;
// two Stores must not share a directory.
type Store struct {
	Dir string

	writing sync.Mutex // Prune must not take a temporary file from under Save
}

// Open makes the directory where it is missing.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return &Store{Dir: dir}, nil
}

// Path is the file for an image digest, "sha256:<hex>".
func (s *Store) Path(digest string) string {
	return filepath.Join(s.Dir, strings.Replace(digest, ":", "-", 1)+".json")
}

// Stamp changes when a stored file is replaced, and is zero when there is none.
type Stamp struct {
	Size    int64
	Changed time.Time
}

// Stamp looks at what is stored for digest without reading it.
func (s *Store) Stamp(digest string) Stamp {
	info, err := os.Stat(s.Path(digest))
	if err != nil {
		return Stamp{}
	}
	return Stamp{Size: info.Size(), Changed: info.ModTime()}
}

// Load returns what is stored for digest. The error is fs.ErrNotExist when
// there is nothing, and a *BrokenError when there was something unusable.
func (s *Store) Load(digest string) (Material, error) {
	path := s.Path(digest)
	f, err := os.Open(path)
	if err != nil {
		return Material{}, fmt.Errorf("evidence: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Material{}, fmt.Errorf("evidence: %w", err)
	}
	m, err := decode(data)
	if err == nil {
		return m, nil
	}
	aside, moveErr := s.setAside(path)
	if moveErr != nil {
		return Material{}, fmt.Errorf("evidence %s: %w", path, errors.Join(err, moveErr))
	}
	return Material{}, &BrokenError{Aside: aside, Err: err}
}

// Save stores m for digest, replacing what was there. When it returns nil, the
// file survives a power cut.
func (s *Store) Save(digest string, m Material) error {
	data, err := encode(m)
	if err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := durable.Write(s.Path(digest), data, 0o600); err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	return nil
}

// Prune deletes what is stored for digests that keep does not name, left-over
// temporary files, and all but the newest broken ones.
func (s *Store) Prune(keep map[string]bool) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	names, err := os.ReadDir(s.Dir)
	if err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	wanted := make(map[string]bool, len(keep))
	for digest := range keep {
		wanted[filepath.Base(s.Path(digest))] = true
	}
	var errs []error
	var broken []fs.DirEntry
	for _, e := range names {
		switch {
		case wanted[e.Name()]:
		case strings.Contains(e.Name(), brokenInfix):
			broken = append(broken, e)
		default:
			errs = append(errs, os.Remove(filepath.Join(s.Dir, e.Name())))
		}
	}
	for _, e := range oldest(broken, len(broken)-maxBroken) {
		errs = append(errs, os.Remove(filepath.Join(s.Dir, e.Name())))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	return nil
}

const brokenInfix = ".broken-"

// setAside renames a broken file out of the way.
func (s *Store) setAside(path string) (string, error) {
	aside := path + brokenInfix + time.Now().UTC().Format("20060102T150405.000000000")
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	return aside, durable.SyncDir(s.Dir)
}

// oldest returns the n entries that were changed first.
func oldest(entries []fs.DirEntry, n int) []fs.DirEntry {
	if n <= 0 {
		return nil
	}
	stamp := func(e fs.DirEntry) string { _, t, _ := strings.Cut(e.Name(), brokenInfix); return t }
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(stamp(a), stamp(b)) })
	return entries[:n]
}

// encode is the form on disk: a line with the hash of the rest, then JSON.
func encode(m Material) ([]byte, error) {
	for _, b := range [][]byte{m.Payload, m.Signature, m.Bundle} {
		if len(b) > MaxBlob {
			return nil, fmt.Errorf("signature of %d bytes is larger than %d", len(b), MaxBlob)
		}
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return append([]byte("sha256:"+hex.EncodeToString(sum[:])+"\n"), body...), nil
}

func decode(data []byte) (Material, error) {
	if len(data) > maxFile {
		return Material{}, fmt.Errorf("larger than %d bytes", maxFile)
	}
	head, body, ok := bytes.Cut(data, []byte("\n"))
	if !ok {
		return Material{}, errors.New("no checksum line")
	}
	sum := sha256.Sum256(body)
	if string(head) != "sha256:"+hex.EncodeToString(sum[:]) {
		return Material{}, errors.New("checksum does not match")
	}
	var m Material
	if err := json.Unmarshal(body, &m); err != nil {
		return Material{}, err
	}
	return m, nil
}
