package gitsource

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// transferError says that what arrived is not a whole, sound pack.
type transferError struct{ err error }

func (e *transferError) Error() string { return "the transfer is not whole: " + e.err.Error() }
func (e *transferError) Unwrap() error { return e.err }

// receive stores a pack that comes from outside as a temporary file in dir
// and indexes it. Sizes are read and held against the limits before anything
// is inflated into memory. A pack without objects is nil.
func receive(r io.Reader, dir string, limits Limits) (p *pack, err error) {
	defer recoverAs(&err)
	f, err := os.CreateTemp(dir, "incoming-*.pack")
	if err != nil {
		return nil, &diskError{err}
	}
	defer func() {
		f.Close()
		if p == nil {
			os.Remove(f.Name())
		}
	}()
	n, err := io.Copy(f, io.LimitReader(r, limits.PackBytes+1))
	var disk *os.PathError
	var sent *transferError
	switch {
	case errors.As(err, &sent):
		return nil, err
	case errors.As(err, &disk):
		return nil, &diskError{err}
	case err != nil:
		return nil, &transferError{err}
	case n > limits.PackBytes:
		return nil, &limitError{what: "bytes of one transfer", bound: limits.PackBytes}
	}
	count, err := weigh(f, limits)
	if err != nil || count == 0 {
		return nil, err
	}
	index, err := indexPack(f)
	if err != nil {
		return nil, &transferError{err}
	}
	return attach(f.Name(), index)
}

// weigh reads a pack from end to end without keeping anything, and counts.
func weigh(f *os.File, limits Limits) (objects int, err error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	scanner := packfile.NewScanner(f)
	_, count, err := scanner.Header()
	if err != nil {
		return 0, &transferError{err}
	}
	if int64(count) > int64(limits.PackObjects) {
		return 0, &limitError{what: "objects in one transfer", bound: int64(limits.PackObjects), have: int64(count)}
	}
	var total int64
	for range count {
		size, err := weighObject(scanner, limits.ObjectBytes)
		if err != nil {
			return 0, err
		}
		if total += size; total > limits.TotalBytes {
			return 0, &limitError{what: "bytes of one transfer, inflated", bound: limits.TotalBytes}
		}
	}
	if _, err := scanner.Checksum(); err != nil {
		return 0, &transferError{err}
	}
	return int(count), nil
}

// weighObject returns the size of the next object when inflated, and when its
// delta is applied.
func weighObject(scanner *packfile.Scanner, bound int64) (int64, error) {
	header, err := scanner.NextObjectHeader()
	if err != nil {
		return 0, &transferError{err}
	}
	if header.Length > bound {
		return 0, &limitError{what: "bytes of one object", bound: bound, have: header.Length}
	}
	var head firstBytes
	n, _, err := scanner.NextObject(&head)
	if err != nil {
		return 0, &transferError{err}
	}
	if n != header.Length {
		return 0, &transferError{fmt.Errorf("an object of %d bytes says it has %d", n, header.Length)}
	}
	size := header.Length
	if header.Type == plumbing.OFSDeltaObject || header.Type == plumbing.REFDeltaObject {
		if size, err = head.deltaResult(); err != nil {
			return 0, &transferError{err}
		}
		if size > bound {
			return 0, &limitError{what: "bytes of one object", bound: bound, have: size}
		}
	}
	return size, nil
}

// firstBytes keeps the beginning of what is written to it: enough for the two
// sizes at the head of a delta.
type firstBytes struct {
	buf [20]byte
	n   int
}

func (b *firstBytes) Write(p []byte) (int, error) {
	b.n += copy(b.buf[b.n:], p)
	return len(p), nil
}

// deltaResult is the second of the two sizes, that of the object made.
func (b *firstBytes) deltaResult() (int64, error) {
	rest := b.buf[:b.n]
	var size uint64
	for range 2 {
		size = 0
		for shift := 0; ; shift += 7 {
			if len(rest) == 0 || shift > 56 {
				return 0, errors.New("a delta without sizes")
			}
			c := rest[0]
			rest = rest[1:]
			size |= uint64(c&0x7f) << shift
			if c&0x80 == 0 {
				break
			}
		}
	}
	return int64(size), nil
}

func indexPack(f *os.File) (*idxfile.MemoryIndex, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	writer := new(idxfile.Writer)
	parser, err := packfile.NewParser(packfile.NewScanner(f), writer)
	if err != nil {
		return nil, err
	}
	if _, err := parser.Parse(); err != nil {
		return nil, err
	}
	return writer.Index()
}
