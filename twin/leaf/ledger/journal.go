package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/twin"
)

const (
	// allocateStep is by how much the file grows at a time, so that an update
	// does not also have to sync a new file size: 2/3 of the time on ext4.
	allocateStep = 256 << 10
	// compactAbove is the size that is worth compacting, in bytes, and
	// compactRatio how many times what is live it then has.
	compactAbove = 1 << 20
	compactRatio = 4
	// keepBroken is how many files that were set aside are kept.
	keepBroken = 3
)

// journal is the file of the twins' records, appended to and now and then
// written anew. It has one user at a time.
type journal struct {
	path   string
	file   *os.File
	end    int64 // where the next record goes
	size   int64 // of the file; from end on it is zero bytes
	live   int64 // bytes after the last time it was written anew
	broken error // why it cannot be appended to, until it is written anew
}

// append writes records and returns when they are on disk. After an error they
// are not, and never will be.
func (j *journal) append(records []byte) error {
	if j.broken != nil {
		return j.broken
	}
	if need := j.end + int64(len(records)); need > j.size {
		size := (need/allocateStep + 1) * allocateStep
		if unix.Fallocate(int(j.file.Fd()), 0, j.size, size-j.size) == nil {
			j.size = size
		} else {
			j.size = need // a file system that cannot, or little room: then as it comes
		}
	}
	_, err := j.file.WriteAt(records, j.end)
	if err == nil {
		failpoint.Reach("twins.written")
		if err = unix.Fdatasync(int(j.file.Fd())); err != nil {
			// The kernel may have dropped what it could not write, and says so once.
			j.broken = fmt.Errorf("sync %s: %w", j.path, err)
			return j.broken
		}
		j.end += int64(len(records))
		return nil
	}
	// What was written of them must not be there for the next start.
	if cut := unix.Ftruncate(int(j.file.Fd()), j.end); cut != nil {
		j.broken = fmt.Errorf("take back what was written: %w", cut)
	}
	j.size = j.end
	return err
}

// seek finds out whether the file is still where the next start looks for it:
// what is written to one that somebody removed is nowhere.
func (j *journal) seek() {
	there, err := os.Stat(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		j.broken = fmt.Errorf("%s was removed", j.path)
		return
	}
	open, errOpen := j.file.Stat()
	if err == nil && errOpen == nil && !os.SameFile(there, open) {
		j.broken = fmt.Errorf("%s was replaced", j.path)
	}
}

// full reports whether writing it anew would save much.
func (j *journal) full() bool {
	return j.broken != nil || j.end > compactAbove && j.end > compactRatio*j.live
}

// rewrite puts a new file with these records in the place of the journal. On an
// error the journal is as it was.
func (j *journal) rewrite(records []byte) error {
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return err
	}
	temp := j.path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	content := append([]byte(journalMagic), records...)
	if err := durable.Create(temp, content, 0o600); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	file, err := os.OpenFile(temp, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	failpoint.Reach("twins.rewritten")
	if err := os.Rename(temp, j.path); err != nil {
		return errors.Join(err, file.Close())
	}
	if j.file != nil {
		j.file.Close() // nobody reads it any more
	}
	j.file, j.broken = file, nil
	j.end, j.size, j.live = int64(len(content)), int64(len(content)), int64(len(content))
	return durable.SyncDir(filepath.Dir(j.path))
}

// keepCopy keeps the file as it is, besides the journal, and returns its name.
func (j *journal) keepCopy(stamp int64) (string, error) {
	kept := fmt.Sprintf("%s.broken-%d", j.path, stamp)
	if err := os.Link(j.path, kept); err != nil {
		return "", err
	}
	old, err := filepath.Glob(j.path + ".broken-*")
	if err != nil {
		return kept, nil
	}
	slices.SortFunc(old, func(a, b string) int { // by age: the stamps may differ in length
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	for _, path := range old[:max(0, len(old)-keepBroken)] {
		os.Remove(path)
	}
	return kept, nil
}

// refusal is how an error of the journal is answered.
func refusal(err error) *twin.Error {
	var e *twin.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return &twin.Error{Code: twin.CodeNoSpace, Message: "no room on the device's disk; nothing was changed"}
	}
	return &twin.Error{Code: twin.CodeFailed, Message: "the device could not write to its disk; nothing was changed: " + err.Error()}
}
