// Package ledger holds the twins of a device: in memory, and in a journal on disk.
// What it shows is on disk. Updates that come at the same time share one sync. A
// journal that was cut off, damaged or removed is read as far as it goes, and no
// version that anybody saw goes back.
package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// Ledger is the twins of one device. Its methods may be called at the same time.
type Ledger struct {
	device string
	warn   func(error)

	mu      sync.Mutex
	entries map[string]Entry // by module, "" is the device
	marks   marks
	waiting []*pending
	changed chan struct{} // holds one value when an entry changed since it was read

	writing    sync.Mutex // who holds it writes what waits, for everybody
	journal    journal
	buffer     []byte
	compacting bool
	failing    bool // the last write failed
}

// MaxRise is by how much one update may raise a version, so that it is known what
// versions a record that was lost can have had.
const MaxRise = 64

// change turns the present entries into those that it changes. Its result is
// real when commit says so.
type change func(get func(module string) (Entry, bool)) ([]Entry, error)

// pending is a change that waits for the disk.
type pending struct {
	change change
	err    error
}

// Open reads the twins of a device from the journal in dir, whatever state that is
// in. warn is told what a person should know, from any goroutine.
func Open(dir, device string, warn func(error)) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &Ledger{device: device, warn: warn, entries: map[string]Entry{}, changed: make(chan struct{}, 1)}
	l.journal.path = filepath.Join(dir, "journal")
	file, err := os.OpenFile(l.journal.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := l.journal.rewrite(nil); err != nil {
			return nil, err
		}
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	l.journal.file = file
	if err := l.read(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return l, nil
}

// read fills the entries from the file.
func (l *Ledger) read() error {
	info, err := l.journal.file.Stat()
	if err != nil {
		return err
	}
	c, err := scanJournal(l.journal.file, info.Size())
	if err != nil {
		return err
	}
	unread := l.take(c)
	l.marks = c.marks
	l.journal.end, l.journal.size, l.journal.live = c.end, c.size, c.end/compactRatio
	if c.size == 0 {
		return l.rewrite()
	}
	if c.lost == 0 && unread == nil {
		if c.end == c.size {
			return nil
		}
		l.journal.size = c.end
		return l.journal.file.Truncate(c.end)
	}
	return l.mend(c.lost, unread)
}

// take reads the last entry of each module. unread says what is not usable.
func (l *Ledger) take(c contents) (unread error) {
	for module, r := range c.latest {
		e, err := r.entry()
		if err == nil && e.Document.Device != l.device {
			err = fmt.Errorf("it is of device %q", e.Document.Device)
		}
		if err != nil {
			unread = errors.Join(unread, fmt.Errorf("twin %q: %w", module, err))
			continue
		}
		if from, ok := c.schema[module]; ok && !r.schema {
			if with, err := from.entry(); err == nil {
				e.Reported = with.Reported
			}
		}
		l.entries[module] = e
	}
	return unread
}

// mend writes a damaged journal anew from what could be read, and keeps the
// damaged one beside it. Versions rise above all that can have been lost.
func (l *Ledger) mend(lost int64, unread error) error {
	jump := (uint64(lost/minRecord) + 1) * MaxRise // what a record raises a version by, at most
	for module, e := range l.entries {
		e.Document.Properties.Desired.Version += jump
		e.Document.Properties.Reported.Version += jump
		l.entries[module] = e
	}
	l.marks.high += jump
	l.marks.floor = l.marks.high
	damage := fmt.Errorf("%s was damaged, %d bytes of it cannot be read; %d twins could", l.journal.path, lost, len(l.entries))
	kept, err := l.journal.keepCopy(time.Now().UnixNano())
	if err == nil {
		damage = fmt.Errorf("%w; the file is kept as %s", damage, kept)
		err = l.rewrite()
	}
	if err != nil {
		// Without a new file nothing can be written, but everything can be read.
		l.journal.broken = fmt.Errorf("%s is damaged and cannot be written anew: %w", l.journal.path, err)
		damage = errors.Join(damage, err)
	}
	l.warn(errors.Join(damage, unread))
	return nil
}

// rewrite compacts the journal. The caller holds l.writing, or is the only one.
func (l *Ledger) rewrite() error {
	l.mu.Lock()
	entries, marks := maps.Clone(l.entries), l.marks
	l.mu.Unlock()
	var records []byte
	var err error
	for _, module := range slices.Sorted(maps.Keys(entries)) {
		if records, err = appendRecord(records, entries[module], true, marks); err != nil {
			return err
		}
	}
	return l.journal.rewrite(records)
}

// Get returns what is on disk of one twin; module is empty for the device. One that
// is not known has the versions that it would start from.
func (l *Ledger) Get(module string) (Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[module]
	if !ok {
		e.Document.Device, e.Document.Module = l.device, module
		e.Document.Properties.Desired.Version = l.marks.floor
		e.Document.Properties.Reported.Version = l.marks.floor
	}
	return e, ok
}

// Declared lists the modules that are declared, sorted.
func (l *Ledger) Declared() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for module, e := range l.entries {
		if module != "" && !e.Document.Removed {
			names = append(names, module)
		}
	}
	slices.Sort(names)
	return names
}

// Declares reports whether a module is declared.
func (l *Ledger) Declares(module string) bool {
	e, ok := l.Get(module)
	return ok && !e.Document.Removed
}

// Documents returns all twins, the device's first, then the modules' by name. The
// values are shared: read them, do not modify them.
func (l *Ledger) Documents() []twin.Document {
	l.mu.Lock()
	defer l.mu.Unlock()
	documents := make([]twin.Document, 0, len(l.entries))
	for _, module := range slices.Sorted(maps.Keys(l.entries)) {
		documents = append(documents, l.entries[module].Document)
	}
	return documents
}

// commit applies a change and returns its error when it is on disk. Changes that
// several bring at the same time share one sync.
func (l *Ledger) commit(c change) error {
	mine := &pending{change: c}
	l.mu.Lock()
	l.waiting = append(l.waiting, mine)
	l.mu.Unlock()

	l.writing.Lock() // while waiting here, another may do it for us
	defer l.writing.Unlock()
	l.mu.Lock()
	batch := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	if len(batch) > 0 {
		l.write(batch)
	}
	return mine.err
}

// write applies a batch with one sync. The caller holds l.writing.
func (l *Ledger) write(batch []*pending) {
	next := map[string]Entry{}
	get := func(module string) (Entry, bool) {
		if e, ok := next[module]; ok {
			return e, true
		}
		return l.Get(module)
	}
	l.buffer = l.buffer[:0]
	high := l.marks.high
	for _, p := range batch {
		p.err = l.apply(p.change, get, next, &high)
	}
	if len(l.buffer) == 0 {
		return
	}
	if err := l.save(); err != nil {
		l.fail(batch, err)
		return
	}
	l.failing = false
	l.mu.Lock()
	maps.Copy(l.entries, next)
	l.marks.high = high
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
	l.compactSoon()
}

// save puts the buffer on disk.
func (l *Ledger) save() error {
	if l.journal.file == nil {
		return os.ErrClosed
	}
	l.journal.seek()
	if l.journal.broken != nil {
		if err := l.rewrite(); err != nil {
			return err
		}
	}
	return l.journal.append(l.buffer)
}

// apply runs one change and adds its records to the buffer, all or none.
func (l *Ledger) apply(c change, get func(string) (Entry, bool), next map[string]Entry, high *uint64) error {
	changed, err := c(get)
	if err != nil {
		return err
	}
	start, above := len(l.buffer), *high
	for _, e := range changed {
		above = max(above, e.Document.Properties.Desired.Version, e.Document.Properties.Reported.Version)
		was, ok := get(e.Document.Module)
		withSchema := !ok || was.Reported != e.Reported
		if l.buffer, err = appendRecord(l.buffer, e, withSchema, marks{above, l.marks.floor}); err != nil {
			l.buffer = l.buffer[:start]
			return err
		}
	}
	for _, e := range changed {
		next[e.Document.Module] = e
	}
	*high = above
	return nil
}

// fail says of every change that was to be written that it was not: also of
// those that changed nothing, since they may have looked at one that did.
func (l *Ledger) fail(batch []*pending, err error) {
	for _, p := range batch {
		if p.err == nil {
			p.err = refusal(err)
		}
	}
	if !l.failing { // once: a full disk must not fill with what is said about it
		l.failing = true
		l.warn(fmt.Errorf("write twins: %w", err))
	}
}

// compactSoon compacts behind the back of whoever waits for an answer. The
// caller holds l.writing.
func (l *Ledger) compactSoon() {
	const keepBuffer = 256 << 10
	if cap(l.buffer) > keepBuffer {
		l.buffer = nil
	}
	if l.compacting || !l.journal.full() {
		return
	}
	l.compacting = true
	go func() {
		l.writing.Lock()
		defer l.writing.Unlock()
		l.compacting = false
		if l.journal.file == nil || !l.journal.full() {
			return
		}
		if err := l.rewrite(); err != nil {
			l.journal.live = l.journal.end // not again before it has grown as much again
			l.warn(fmt.Errorf("compact %s: %w", l.journal.path, err))
		}
	}()
}

// Changed returns a channel that holds one value when a twin changed since the last
// receive. It has one reader.
func (l *Ledger) Changed() <-chan struct{} { return l.changed }

// Close closes the file. Changes after it are refused.
func (l *Ledger) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.journal.file == nil {
		return nil
	}
	err := l.journal.file.Close()
	l.journal.file = nil
	return err
}
