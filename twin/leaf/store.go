package leaf

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

// twinsDir is where the journal is, below the state directory.
const twinsDir = "twins"

// store holds the twins in memory and in its journal. What it shows is on disk.
type store struct {
	device string
	warn   func(error)

	mu      sync.Mutex
	entries map[string]entry // by module, "" is the device
	marks   marks
	waiting []*pending
	changed chan struct{} // holds one value when an entry changed since it was read

	writing    sync.Mutex // who holds it writes what waits, for everybody
	journal    journal
	buffer     []byte
	compacting bool
	failing    bool // the last write failed
}

// change turns the present entries into those that it changes. Its result is
// real when commit says so.
type change func(get func(module string) (entry, bool)) ([]entry, error)

// pending is a change that waits for the disk.
type pending struct {
	change change
	err    error
}

// openStore reads the twins of a device, whatever state the file is in.
func openStore(dir, device string, warn func(error)) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("twins: %w", err)
	}
	s := &store{device: device, warn: warn, entries: map[string]entry{}, changed: make(chan struct{}, 1)}
	s.journal.path = filepath.Join(dir, "journal")
	file, err := os.OpenFile(s.journal.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.journal.rewrite(nil); err != nil {
			return nil, fmt.Errorf("twins: %w", err)
		}
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("twins: %w", err)
	}
	s.journal.file = file
	if err := s.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("twins: %w", err), file.Close())
	}
	return s, nil
}

// read fills the entries from the file.
func (s *store) read() error {
	info, err := s.journal.file.Stat()
	if err != nil {
		return err
	}
	c, err := scanJournal(s.journal.file, info.Size())
	if err != nil {
		return err
	}
	unread := s.take(c)
	s.marks = c.marks
	s.journal.end, s.journal.size, s.journal.live = c.end, c.size, c.end/compactRatio
	if c.size == 0 {
		return s.rewrite()
	}
	if c.lost == 0 && unread == nil {
		if c.end == c.size {
			return nil
		}
		s.journal.size = c.end
		return s.journal.file.Truncate(c.end)
	}
	return s.mend(c.lost, unread)
}

// take reads the last entry of each module. unread says what is not usable.
func (s *store) take(c contents) (unread error) {
	for module, r := range c.latest {
		e, err := r.entry()
		if err == nil && e.Document.Device != s.device {
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
		s.entries[module] = e
	}
	return unread
}

// mend writes a damaged journal anew from what could be read, and keeps the
// damaged one beside it. Versions rise above all that can have been lost.
func (s *store) mend(lost int64, unread error) error {
	jump := (uint64(lost/minRecord) + 1) * maxBatch // what a record raises a version by, at most
	for module, e := range s.entries {
		e.Document.Properties.Desired.Version += jump
		e.Document.Properties.Reported.Version += jump
		s.entries[module] = e
	}
	s.marks.high += jump
	s.marks.floor = s.marks.high
	damage := fmt.Errorf("%s was damaged, %d bytes of it cannot be read; %d twins could", s.journal.path, lost, len(s.entries))
	kept, err := s.journal.keepCopy(time.Now().UnixNano())
	if err == nil {
		damage = fmt.Errorf("%w; the file is kept as %s", damage, kept)
		err = s.rewrite()
	}
	if err != nil {
		// Without a new file nothing can be written, but everything can be read.
		s.journal.broken = fmt.Errorf("%s is damaged and cannot be written anew: %w", s.journal.path, err)
		damage = errors.Join(damage, err)
	}
	s.warn(errors.Join(damage, unread))
	return nil
}

// rewrite compacts the journal. The caller holds s.writing, or is the only one.
func (s *store) rewrite() error {
	s.mu.Lock()
	entries, marks := maps.Clone(s.entries), s.marks
	s.mu.Unlock()
	var records []byte
	var err error
	for _, module := range slices.Sorted(maps.Keys(entries)) {
		if records, err = appendRecord(records, entries[module], true, marks); err != nil {
			return err
		}
	}
	return s.journal.rewrite(records)
}

// get returns what is on disk of one twin. One that is not known has the versions
// that it would start from.
func (s *store) get(module string) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[module]
	if !ok {
		e.Document.Device, e.Document.Module = s.device, module
		e.Document.Properties.Desired.Version = s.marks.floor
		e.Document.Properties.Reported.Version = s.marks.floor
	}
	return e, ok
}

// declared lists the modules that are declared, sorted.
func (s *store) declared() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for module, e := range s.entries {
		if module != "" && !e.Document.Removed {
			names = append(names, module)
		}
	}
	slices.Sort(names)
	return names
}

// declares reports whether a module is declared.
func (s *store) declares(module string) bool {
	e, ok := s.get(module)
	return ok && !e.Document.Removed
}

// documents returns all twins, the device's first.
func (s *store) documents() []twin.Document {
	s.mu.Lock()
	defer s.mu.Unlock()
	documents := make([]twin.Document, 0, len(s.entries))
	for _, module := range slices.Sorted(maps.Keys(s.entries)) {
		documents = append(documents, s.entries[module].Document)
	}
	return documents
}

// commit applies changes in order and returns the error of each when all are on
// disk. Changes that several bring at the same time share one sync.
func (s *store) commit(changes ...change) []error {
	mine := make([]*pending, len(changes))
	for i, c := range changes {
		mine[i] = &pending{change: c}
	}
	s.mu.Lock()
	s.waiting = append(s.waiting, mine...)
	s.mu.Unlock()

	s.writing.Lock() // while waiting here, another may do it for us
	s.mu.Lock()
	batch := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	if len(batch) > 0 {
		s.write(batch)
	}
	s.writing.Unlock()

	errs := make([]error, len(mine))
	for i, p := range mine {
		errs[i] = p.err
	}
	return errs
}

// write applies a batch with one sync. The caller holds s.writing.
func (s *store) write(batch []*pending) {
	next := map[string]entry{}
	get := func(module string) (entry, bool) {
		if e, ok := next[module]; ok {
			return e, true
		}
		return s.get(module)
	}
	s.buffer = s.buffer[:0]
	high := s.marks.high
	for _, p := range batch {
		p.err = s.apply(p.change, get, next, &high)
	}
	if len(s.buffer) == 0 {
		return
	}
	if err := s.save(); err != nil {
		s.fail(batch, err)
		return
	}
	s.failing = false
	s.mu.Lock()
	maps.Copy(s.entries, next)
	s.marks.high = high
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	s.compactSoon()
}

// save puts the buffer on disk.
func (s *store) save() error {
	if s.journal.file == nil {
		return os.ErrClosed
	}
	s.journal.seek()
	if s.journal.broken != nil {
		if err := s.rewrite(); err != nil {
			return err
		}
	}
	return s.journal.append(s.buffer)
}

// apply runs one change and adds its records to the buffer, all or none.
func (s *store) apply(c change, get func(string) (entry, bool), next map[string]entry, high *uint64) error {
	changed, err := c(get)
	if err != nil {
		return err
	}
	start, above := len(s.buffer), *high
	for _, e := range changed {
		above = max(above, e.Document.Properties.Desired.Version, e.Document.Properties.Reported.Version)
		was, ok := get(e.Document.Module)
		withSchema := !ok || was.Reported != e.Reported
		if s.buffer, err = appendRecord(s.buffer, e, withSchema, marks{above, s.marks.floor}); err != nil {
			s.buffer = s.buffer[:start]
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
func (s *store) fail(batch []*pending, err error) {
	for _, p := range batch {
		if p.err == nil {
			p.err = refusal(err)
		}
	}
	if !s.failing { // once: a full disk must not fill with what is said about it
		s.failing = true
		s.warn(fmt.Errorf("write twins: %w", err))
	}
}

// compactSoon compacts behind the back of whoever waits for an answer. The
// caller holds s.writing.
func (s *store) compactSoon() {
	const keepBuffer = 256 << 10
	if cap(s.buffer) > keepBuffer {
		s.buffer = nil
	}
	if s.compacting || !s.journal.full() {
		return
	}
	s.compacting = true
	go func() {
		s.writing.Lock()
		defer s.writing.Unlock()
		s.compacting = false
		if s.journal.file == nil || !s.journal.full() {
			return
		}
		if err := s.rewrite(); err != nil {
			s.journal.live = s.journal.end // not again before it has grown as much again
			s.warn(fmt.Errorf("compact %s: %w", s.journal.path, err))
		}
	}()
}

// close closes the file. Changes after it are refused.
func (s *store) close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.journal.file == nil {
		return nil
	}
	err := s.journal.file.Close()
	s.journal.file = nil
	return err
}
