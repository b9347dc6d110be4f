package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// Log reads what one module printed, while it prints. It needs no agent, writes
// nothing and locks nothing. Positions count bytes from the first that the module
// ever printed; they stay what they are when the log loses its beginning.
type Log struct {
	file      *os.File
	path      string
	marksPath string
	stuck     header // in which a keeper was killed in a cut; zero is none known
}

// ErrNone is what Open says when a module has no log.
var ErrNone = errors.New("it has printed nothing yet")

// Open opens the log of a module in the directory of a Files.
func Open(dir, module string) (*Log, error) {
	if err := schema.CheckName(module); err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	l := &Log{path: logPath(dir, module), marksPath: marksPath(dir, module)}
	f, err := openLog(l.path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("log of %s: %w", module, ErrNone)
	}
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", module, err)
	}
	l.file = f
	return l, nil
}

// Close closes it.
func (l *Log) Close() error { return l.file.Close() }

// Info is what List says of a log.
type Info struct {
	Module string
	Size   int64     // bytes that can be read
	Newest time.Time // when the module printed last, by the clock of then
}

// List lists the logs in the directory of a Files, newest first. A directory
// that is not there has none.
func List(dir string) ([]Info, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list logs: %w", err)
	}
	var all []Info
	for _, e := range entries {
		module, ok := moduleOf(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		info, err := describe(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list logs: %w", err)
		}
		info.Module = module
		all = append(all, info)
	}
	slices.SortStableFunc(all, func(a, b Info) int { return b.Newest.Compare(a.Newest) })
	return all, nil
}

func describe(path string) (Info, error) {
	f, err := openLog(path, os.O_RDONLY)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	e, err := extentOf(f)
	return Info{Size: e.size - e.start, Newest: stat.ModTime()}, err
}

// steady calls read with how many bytes were cut out of the file before its
// first, and again when that changed meanwhile.
func (l *Log) steady(read func(base int64) error) error {
	const tries, wait = 100, 10 * time.Millisecond // what a cut takes at most
	before := l.header()
	for range tries {
		if before == l.stuck && before.cutting != 0 {
			return read(l.settled())
		}
		err := read(before.base)
		after := l.header()
		if after.base == before.base && after.cutting == 0 {
			return err
		}
		if before = after; after.cutting != 0 {
			time.Sleep(wait)
		}
	}
	l.stuck = before
	return read(l.settled())
}

// settled is base where a keeper was killed in a cut: as its successor will find.
func (l *Log) settled() int64 {
	ledger, _ := readLedger(l.marksPath)
	if info, err := l.file.Stat(); err == nil && ledger.base+info.Size() < ledger.end() {
		return ledger.base + ledger.cutting
	}
	return ledger.base
}

// header reads the header of the marks; without them it is zero.
func (l *Log) header() header {
	f, err := os.Open(l.marksPath)
	if err != nil {
		return header{}
	}
	defer f.Close()
	b := make([]byte, headerSize)
	if _, err := io.ReadFull(f, b); err != nil {
		return header{}
	}
	h, _ := parseHeader(b)
	return h
}

// Span is from where to where there is something to read now.
func (l *Log) Span() (start, end int64, err error) {
	err = l.steady(func(base int64) error {
		e, err := extentOf(l.file)
		start, end = base+e.start, base+e.size
		return err
	})
	return start, end, err
}

// ReadAt implements io.ReaderAt. What is no longer there reads as zeros, or as
// io.EOF.
func (l *Log) ReadAt(p []byte, position int64) (n int, err error) {
	err = l.steady(func(base int64) error {
		if n = 0; position < base {
			return io.EOF
		}
		n, err = l.file.ReadAt(p, position-base)
		return err
	})
	return n, err
}

// Start is the first position that a whole line begins at. The first line is
// not whole when something was cut off before it, unless a run begins there.
func (l *Log) Start() (int64, error) {
	start, end, err := l.Span()
	if err != nil || start == 0 {
		return start, err
	}
	ledger, _ := readLedger(l.marksPath)
	for _, m := range ledger.marks {
		if m.begin && m.offset == start {
			return start, nil
		}
	}
	const longLine = 64 << 10 // one that is longer is shown from where it is there
	b := make([]byte, min(longLine, end-start))
	n, err := l.ReadAt(b, start)
	if err != nil && !errors.Is(err, io.EOF) {
		return start, err
	}
	return start + int64(bytes.IndexByte(b[:n], '\n')+1), nil
}

// Ago is where to begin to read what was printed within the last d. It errs
// towards more: by what was printed in the second before while an agent ran, by
// a few seconds for output that is thousands of seconds old, and by all that was
// printed since an agent ran last. It does not depend on the wall clock for what
// was printed since the boot.
func (l *Log) Ago(d time.Duration) (int64, error) {
	now := present()
	return l.after(func(m mark) bool {
		if m.boot == now.boot {
			return m.uptime > now.uptime-int64(d)
		}
		return m.wall > now.wall-int64(d)
	})
}

// Since is where to begin to read what was printed at t or later, by what the
// wall clock showed then. It errs like Ago.
func (l *Log) Since(t time.Time) (int64, error) {
	return l.after(func(m mark) bool { return m.wall > t.UnixNano() })
}

// after is the position of the last mark before the first for which late holds:
// clocks that were set put marks out of order, and then it begins too early
// rather than too late.
func (l *Log) after(late func(mark) bool) (int64, error) {
	start, err := l.Start()
	if err != nil {
		return 0, err
	}
	ledger, _ := readLedger(l.marksPath)
	for _, m := range ledger.marks {
		if late(m) {
			break
		}
		start = max(start, m.offset)
	}
	return start, nil
}

// Run is where the output of the present or last run begins.
func (l *Log) Run() (int64, error) {
	start, err := l.Start()
	ledger, _ := readLedger(l.marksPath)
	return max(start, ledger.runBegin()), err
}

// Last is where the last lines begin, but not before from. It reads no more
// than it must.
func (l *Log) Last(lines int, from int64) (int64, error) {
	_, end, err := l.Span()
	if err != nil || lines <= 0 {
		return end, err
	}
	const chunk = 64 << 10
	b := make([]byte, chunk)
	for at := end; at > from; {
		n := min(chunk, at-from)
		at -= n
		if _, err := l.ReadAt(b[:n], at); err != nil && !errors.Is(err, io.EOF) {
			return from, err
		}
		for i := n - 1; i >= 0; i-- {
			if b[i] != '\n' || at+i+1 == end { // the newline that ends the last line
				continue
			}
			if lines--; lines == 0 {
				return at + i + 1, nil
			}
		}
	}
	return from, nil
}

// Copy writes to w what is there from position on, and returns where it ended
// and how much had been cut off before it could be read.
func (l *Log) Copy(w io.Writer, position int64) (next, lost int64, err error) {
	b := make([]byte, 64<<10)
	for next = position; ; {
		start, end, err := l.Span()
		if err != nil {
			return next, lost, err
		}
		if next < start {
			if start, err = l.Start(); err != nil {
				return next, lost, err
			}
			lost += start - next
			next = start
		}
		if next >= end {
			return next, lost, nil
		}
		n, err := l.ReadAt(b[:min(int64(len(b)), end-next)], next)
		if err != nil && !errors.Is(err, io.EOF) {
			return next, lost, err
		}
		// What was cut off meanwhile was read as zeros.
		if start, _, err = l.Span(); err != nil || start > next {
			if err != nil {
				return next, lost, err
			}
			continue
		}
		if n == 0 {
			return next, lost, nil
		}
		if _, err := w.Write(b[:n]); err != nil {
			return next, lost, err
		}
		next += int64(n)
	}
}
