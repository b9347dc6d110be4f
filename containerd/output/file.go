package output

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// file is one log, as its keeper knows it.
type file struct {
	path      string // of the log
	marksPath string
	spare     *spare

	mu       sync.Mutex
	loaded   bool
	ledger   ledger
	reserved int64  // room is allocated up to this position in the file
	sparse   bool   // holes cannot be cut out here
	cleared  bool   // there is no reason to think that the shim has stopped to write
	told     string // the last problem that Warn was told of
}

// Shares of the bound.
const (
	keepMost  = 2 // halves of it stay when a log is cut
	keepLeast = 8 // eighths, when the disk is full
	aheadPart = 4 // quarters are allocated ahead of what is printed
)

// gap is more than readers have seen of a log since its keeper looked last.
const gap = 1 << 30

// Bounds on how long a file seems to be, holes included.
const (
	longHole = 16      // bounds, before it is cut out
	longest  = 1 << 40 // bytes, where holes cannot be cut out; ext4 ends at 16 TiB, and the module with it
)

// begin makes the log and marks the begin of a run. What stands only in the way
// of dates and bounds is a warning.
func (f *file) begin(max int64, now moment) (warning, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	log, err := openLog(f.path, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if err := log.Chmod(0o600); err != nil {
		return nil, err
	}
	state, err := f.survey(log, now)
	if err != nil {
		return nil, err
	}
	f.reserved = 0 // others may have taken it
	if err := f.reserve(log, &state, max); err != nil {
		return nil, err
	}
	f.cleared = true
	return f.ledger.add(f.marksPath, mark{moment: now, offset: f.ledger.base + state.size, begin: true}, f.ledger.base+state.start), nil
}

// look bounds the log and marks how far it has come. It returns by how much it
// has grown since the last look.
func (f *file) look(max int64, now moment) (grown int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	log, err := openLog(f.path, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer log.Close()
	state, err := f.survey(log, now)
	if err != nil {
		return 0, err
	}
	if f.reserved > 0 && state.size >= f.reserved && !roomy(log, max) {
		f.cleared = false
	}
	err = f.bound(log, &state, max)
	end := f.ledger.base + state.size
	if grown = end - f.ledger.end(); grown <= 0 {
		return 0, err
	}
	err = errors.Join(err, f.reserve(log, &state, max))
	return grown, errors.Join(err, f.ledger.add(f.marksPath, mark{moment: now, offset: end}, f.ledger.base+state.start))
}

// extent is where in its file a log is: [start, size).
type extent struct{ start, size int64 }

func extentOf(log *os.File) (extent, error) {
	info, err := log.Stat()
	if err != nil {
		return extent{}, err
	}
	e := extent{size: info.Size()}
	e.start, err = unix.Seek(int(log.Fd()), 0, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // nothing but a hole
		e.start = e.size
	case err != nil: // holes are not known here
		e.start = 0
	}
	e.start = min(e.start, e.size)
	return e, nil
}

// survey finds out where the log is, reads its marks at the first call, and
// brings f.ledger.base up to date where somebody else made the log shorter, or
// this process's predecessor was killed when it did.
func (f *file) survey(log *os.File, now moment) (extent, error) {
	e, err := extentOf(log)
	if err != nil {
		return e, err
	}
	if !f.loaded {
		var whole bool
		f.ledger, whole = readLedger(f.marksPath)
		f.loaded = true
		if !whole {
			_ = f.ledger.save(f.marksPath) // what is damaged in it harms no reader
		}
	}
	end, was := f.ledger.end(), f.ledger
	if f.ledger.base+e.size < end {
		f.ledger.base += f.ledger.cutting
	}
	if f.ledger.base+e.size < end { // by somebody else, who knows when: readers are before end+gap
		f.ledger.base, f.reserved = end+gap, 0
		_ = f.ledger.add(f.marksPath, mark{moment: now, offset: f.ledger.base, begin: true}, f.ledger.base) // for Log.Start
	}
	f.ledger.cutting = 0
	if f.ledger.base != was.base || was.cutting != 0 {
		_ = f.saveHeader() // where that fails, readers see that the log is shorter
	}
	return e, nil
}

// saveHeader writes what readers must know to find the log in its file.
func (f *file) saveHeader() error {
	err := saveAt(f.marksPath, f.ledger.header.record(), 0)
	if errors.Is(err, os.ErrNotExist) {
		return f.ledger.save(f.marksPath)
	}
	return err
}

// bound makes the oldest part of the log a hole when the log is too long, and
// cuts out a hole that is too long.
func (f *file) bound(log *os.File, e *extent, max int64) error {
	if e.size-e.start > max-max/aheadPart {
		if err := f.punch(log, e, max/keepMost); err != nil {
			return err
		}
	}
	if e.start > longHole*max && e.start < e.size && !f.sparse && roomy(log, max) {
		err := f.shift(log, e, e.start, func() error {
			return unix.Fallocate(int(log.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, e.start)
		})
		f.sparse = err != nil
	}
	if e.size > longest {
		return f.clear(log, e)
	}
	return nil
}

// roomy reports whether the disk has room for another log. Where it has not, no
// hole is cut out: XFS gives back what is allocated ahead when it does that.
func roomy(log *os.File, max int64) bool {
	var stat unix.Statfs_t
	err := unix.Fstatfs(int(log.Fd()), &stat)
	return err == nil && int64(stat.Bavail)*int64(stat.Bsize) >= max
}

// punch leaves the newest keep bytes of the log.
func (f *file) punch(log *os.File, e *extent, keep int64) error {
	to := e.size - keep
	var stat unix.Stat_t
	if err := unix.Fstat(int(log.Fd()), &stat); err != nil {
		return err
	}
	if to -= to % int64(stat.Blksize); to <= e.start {
		return nil
	}
	hole := func() error {
		return unix.Fallocate(int(log.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, to)
	}
	err := hole()
	if errors.Is(err, unix.ENOSPC) {
		f.spare.give()
		err = hole()
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return f.clear(log, e)
	}
	if err != nil {
		return fmt.Errorf("cut it: %w", err)
	}
	e.start = to
	return nil
}

// clear drops all that was printed.
func (f *file) clear(log *os.File, e *extent) error {
	err := f.shift(log, e, e.size, func() error { return log.Truncate(0) })
	if err != nil {
		return fmt.Errorf("clear it: %w", err)
	}
	return f.ledger.add(f.marksPath, mark{moment: present(), offset: f.ledger.base, begin: true}, f.ledger.base)
}

// shift makes the file shorter by its first n bytes, which cut does, and lets
// readers know: before, so that none takes one place for another, and after.
func (f *file) shift(log *os.File, e *extent, n int64, cut func() error) error {
	before := f.ledger
	f.ledger.cutting = n
	// On a disk so full that a header cannot be written there is none, and base
	// was never but 0: a reader then sees the log become shorter.
	_ = f.saveHeader()
	err := cut()
	f.ledger.cutting = 0
	if err == nil {
		f.ledger.base = before.base + n
		e.start, e.size, f.reserved = max(0, e.start-n), max(0, e.size-n), 0
	}
	_ = f.saveHeader()
	return err
}

// reserve allocates room for what is printed next. Where there is none, the log
// makes some by becoming shorter.
func (f *file) reserve(log *os.File, e *extent, max int64) error {
	ahead := max / aheadPart
	if f.reserved-e.size > ahead/2 {
		return nil
	}
	got, err := allocate(log, e.size, ahead)
	if errors.Is(err, unix.ENOSPC) && e.size-e.start > max/keepLeast {
		if err := f.punch(log, e, max/keepLeast); err != nil {
			return err
		}
		got, err = allocate(log, e.size, ahead)
	}
	if errors.Is(err, unix.EOPNOTSUPP) { // such as ramfs, and ext3: nothing helps there
		f.reserved = math.MaxInt64
		return nil
	}
	f.reserved = e.size + got
	if err != nil {
		return fmt.Errorf("allocate %d KiB for it: %w", ahead>>10, err)
	}
	return nil
}

// allocate takes n bytes from the filesystem for what will be at that position,
// or as much as there is. It is an error to get less than a quarter.
func allocate(log *os.File, position, n int64) (got int64, err error) {
	for least := n / 4; n >= least; n /= 2 {
		err = unix.Fallocate(int(log.Fd()), unix.FALLOC_FL_KEEP_SIZE, position, n)
		if !errors.Is(err, unix.ENOSPC) {
			break
		}
	}
	if err != nil {
		n = 0
	}
	return n, err
}

// news reports whether problem is not what was told last.
func (f *file) news(problem error) bool {
	text := ""
	if problem != nil {
		text = problem.Error()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.told = text }()
	return text != "" && text != f.told
}
