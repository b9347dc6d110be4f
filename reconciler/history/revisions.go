package history

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
)

// Bounds of the definitions.
const (
	maxRevisions     = 5
	maxRevisionBytes = 16 << 20 // of all together
)

const revisionsDir = "revisions"

// A commit is the name of a file.
var commitName = regexp.MustCompile(`^[0-9a-f]{1,64}$`)

// Revisions are the definitions of the newest good revisions. Its methods may be
// called concurrently.
type Revisions struct {
	dir string

	mu   sync.Mutex
	kept []kept // newest first
}

// kept is one definition that is on the disk.
type kept struct {
	revision schema.Revision
	turn     uint64 // the higher the newer
	size     int64  // bytes of the file
}

// definition is what a file says.
type definition struct {
	Turn    uint64         `json:"turn"` // counts up with each revision that became good: no clock is asked
	Desired schema.Desired `json:"desired"`
}

// OpenRevisions reads what is kept below dir. It is usable also with an error,
// which says what was set aside.
func OpenRevisions(dir string) (*Revisions, error) {
	r := &Revisions{dir: filepath.Join(dir, revisionsDir)}
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read earlier revisions: %w", err)
	}
	var errs []error
	for _, e := range entries {
		commit, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !commitName.MatchString(commit) {
			continue
		}
		d, size, err := r.load(commit)
		if err != nil {
			errs = append(errs, fmt.Errorf("read earlier revisions: %w", err))
			continue
		}
		r.kept = append(r.kept, kept{d.Desired.Revision, d.Turn, size})
	}
	r.sort()
	return r, errors.Join(errs...)
}

// Keep adds a definition as the newest one, and deletes the oldest where there
// are too many.
func (r *Revisions) Keep(desired schema.Desired) error {
	commit := desired.Revision.Commit
	if !commitName.MatchString(commit) {
		return fmt.Errorf("keep revision %q: not a commit", commit)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	turn := uint64(1)
	if len(r.kept) > 0 {
		if r.kept[0].revision.Commit == commit {
			return nil
		}
		turn += r.kept[0].turn
	}
	b, err := durable.Seal(version, definition{turn, desired})
	if err == nil && len(b) > maxRevisionBytes {
		err = fmt.Errorf("%d bytes are more than the %d that fit", len(b), maxRevisionBytes)
	}
	if err == nil {
		err = os.MkdirAll(r.dir, 0o700)
	}
	if err == nil {
		err = durable.Write(r.path(commit), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep revision %s: %w", desired.Revision.Short(), err)
	}
	r.kept = slices.DeleteFunc(r.kept, func(k kept) bool { return k.revision.Commit == commit })
	r.kept = append(r.kept, kept{desired.Revision, turn, int64(len(b))})
	r.sort()
	return r.bound()
}

// List names what is kept, newest first.
func (r *Revisions) List() []schema.Revision {
	r.mu.Lock()
	defer r.mu.Unlock()
	revisions := make([]schema.Revision, len(r.kept))
	for i, k := range r.kept {
		revisions[i] = k.revision
	}
	return revisions
}

// Load reads a definition that List names, by its whole commit.
func (r *Revisions) Load(commit string) (schema.Desired, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.kept, func(k kept) bool { return k.revision.Commit == commit })
	if i < 0 {
		return schema.Desired{}, fmt.Errorf("revision %.12s is not kept", commit)
	}
	d, _, err := r.load(commit)
	if err != nil {
		r.kept = slices.Delete(r.kept, i, i+1)
		return schema.Desired{}, fmt.Errorf("read revision %.12s: %w", commit, err)
	}
	return d.Desired, nil
}

func (r *Revisions) load(commit string) (d definition, size int64, err error) {
	path := r.path(commit)
	info, err := os.Stat(path)
	if err != nil {
		return d, 0, err
	}
	if err := read(path, maxRevisionBytes, &d); err != nil {
		return d, 0, err
	}
	if d.Desired.Revision.Commit != commit {
		return d, 0, fmt.Errorf("%s is of revision %q", path, d.Desired.Revision.Commit)
	}
	return d, info.Size(), nil
}

// bound deletes the oldest definitions beyond the bounds; the newest stays.
func (r *Revisions) bound() error {
	var sum int64
	for i, k := range r.kept {
		sum += k.size
		if i == 0 || i < maxRevisions && sum <= maxRevisionBytes {
			continue
		}
		drop := r.kept[i:]
		r.kept = slices.Clone(r.kept[:i])
		for _, k := range drop {
			if err := os.Remove(r.path(k.revision.Commit)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("forget revision %s: %w", k.revision.Short(), err)
			}
		}
		break
	}
	return nil
}

func (r *Revisions) sort() {
	slices.SortFunc(r.kept, func(a, b kept) int { return cmp.Compare(b.turn, a.turn) })
}

func (r *Revisions) path(commit string) string { return filepath.Join(r.dir, commit+".json") }

// decode reads one JSON value; twins keep every digit of their numbers.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(v)
}
