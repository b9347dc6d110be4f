// Package database reads the databases that containerd keeps what it knows in, and
// says whether they are damaged.
//
// They are bbolt files. A damaged one makes containerd panic, or come up without
// its services (containerd#4838, #9929), and bbolt's own check panics with it; so
// this reads the pages itself, and trusts nothing in them. Layout: go.etcd.io/bbolt,
// internal/common/{page,meta}.go.
package database

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

const (
	pageHeader   = 16 // id, flags, count, overflow
	pageElement  = 16 // of a branch: offset, key size, page; of a leaf: flags, offset, key size, value size
	bucketHeader = 16 // root page, sequence
	metaSize     = 64

	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageFreelist = 0x10

	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	noFreelist   = ^uint64(0) // the list is not stored
	maxDepth     = 64         // of pages and of buckets
	maxPageBytes = 64 << 20   // of a page with its overflow
)

// database is a bbolt file that is being checked.
type database struct {
	file  io.ReaderAt
	size  int64
	page  int64           // bytes of one
	high  uint64          // pages from here on are not in use
	seen  map[uint64]bool // pages that something refers to
	depth int
}

// meta is one of the two roots of a database.
type meta struct {
	page             int64
	root, free, high uint64
	transaction      uint64
	isWhole          bool
}

// Check reads a whole database and says what is wrong with it: a
// *DamagedError. Any other error is of reading it. An empty file is a new
// database. Nobody may write to it meanwhile.
func Check(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := checkPages(f, info.Size()); err != nil {
		return &DamagedError{path, err}
	}
	return nil
}

// DamagedError says that a database cannot be used, and why.
type DamagedError struct {
	Path   string // of the file
	Reason error
}

// Error names the file and what is wrong with it.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("database %s is damaged: %v", e.Path, e.Reason)
}

// Unwrap returns the reason.
func (e *DamagedError) Unwrap() error { return e.Reason }

func checkPages(file io.ReaderAt, size int64) error {
	if size == 0 {
		return nil
	}
	m, err := newestMeta(file, size)
	if err != nil {
		return err
	}
	if m.high > uint64(size/m.page) {
		return fmt.Errorf("it has %d of its %d pages", size/m.page, m.high)
	}
	d := &database{file: file, size: size, page: m.page, high: m.high, seen: map[uint64]bool{}}
	if m.free != noFreelist {
		if err := d.freelist(m.free); err != nil {
			return err
		}
	}
	return d.tree(m.root)
}

// newestMeta returns the root of the last transaction.
func newestMeta(file io.ReaderAt, size int64) (meta, error) {
	first := readMeta(file, 0)
	// Where the first is broken, the second is at the end of a page whose size is
	// not known.
	sizes := []int64{4096, 8192, 16384, 65536}
	if first.isWhole {
		sizes = []int64{first.page}
	}
	best := first
	for _, page := range sizes {
		second := readMeta(file, page)
		if second.isWhole && second.page == page && (!best.isWhole || second.transaction > best.transaction) {
			best = second
		}
	}
	if !best.isWhole {
		return meta{}, errors.New("neither of its roots is whole")
	}
	if best.page < 512 || best.page > 1<<16 || best.page&(best.page-1) != 0 {
		return meta{}, fmt.Errorf("pages of %d bytes", best.page)
	}
	// bbolt reads both at its start, and takes the file's size for what it is.
	if size < 2*best.page {
		return meta{}, fmt.Errorf("it has only %d bytes", size)
	}
	return best, nil
}

func readMeta(file io.ReaderAt, at int64) meta {
	b := make([]byte, pageHeader+metaSize)
	if _, err := file.ReadAt(b, at); err != nil {
		return meta{}
	}
	b = b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	word, half := binary.NativeEndian.Uint64, binary.NativeEndian.Uint32
	return meta{
		isWhole: half(b) == boltMagic && half(b[4:]) == boltVersion && word(b[56:]) == sum.Sum64(),
		page:    int64(half(b[8:])),
		root:    word(b[16:]), free: word(b[32:]), high: word(b[40:]), transaction: word(b[48:]),
	}
}

// load reads a page with its overflow, which nothing else may refer to.
func (d *database) load(id uint64, flags ...uint16) (page []byte, flag uint16, err error) {
	if id < 2 || id >= d.high {
		return nil, 0, fmt.Errorf("page %d: there are %d", id, d.high)
	}
	head := make([]byte, pageHeader)
	if _, err := d.file.ReadAt(head, int64(id)*d.page); err != nil {
		return nil, 0, fmt.Errorf("page %d: %w", id, err)
	}
	flag = binary.NativeEndian.Uint16(head[8:])
	overflow := uint64(binary.NativeEndian.Uint32(head[12:]))
	if said := binary.NativeEndian.Uint64(head); said != id {
		return nil, 0, fmt.Errorf("page %d: calls itself %d", id, said)
	}
	known := false
	for _, f := range flags {
		known = known || f == flag
	}
	if !known {
		return nil, 0, fmt.Errorf("page %d: of kind %#x", id, flag)
	}
	length := int64(overflow+1) * d.page
	if id+overflow >= d.high || length > maxPageBytes {
		return nil, 0, fmt.Errorf("page %d: %d bytes", id, length)
	}
	for i := id; i <= id+overflow; i++ {
		if d.seen[i] {
			return nil, 0, fmt.Errorf("page %d: is in use twice", i)
		}
		d.seen[i] = true
	}
	page = make([]byte, length)
	if _, err := d.file.ReadAt(page, int64(id)*d.page); err != nil {
		return nil, 0, fmt.Errorf("page %d: %w", id, err)
	}
	return page, flag, nil
}

// freelist checks the list of free pages.
func (d *database) freelist(id uint64) error {
	page, _, err := d.load(id, pageFreelist)
	if err != nil {
		return err
	}
	count, ids := uint64(binary.NativeEndian.Uint16(page[10:])), page[pageHeader:]
	if count == 0xFFFF { // more than fit there: the first entry is the count
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return fmt.Errorf("page %d: %d free pages in %d bytes", id, count, len(ids))
	}
	for i := range count {
		free := binary.NativeEndian.Uint64(ids[8*i:])
		if free < 2 || free >= d.high || d.seen[free] {
			return fmt.Errorf("page %d: says that page %d is free", id, free)
		}
		d.seen[free] = true
	}
	return nil
}

// tree checks the page and all below it.
func (d *database) tree(id uint64) error {
	page, flag, err := d.load(id, pageBranch, pageLeaf)
	if err != nil {
		return err
	}
	return d.elements(id, page, flag)
}

// elements checks what is in a page; an inline bucket is one within another's
// value.
func (d *database) elements(id uint64, page []byte, flag uint16) error {
	if d.depth++; d.depth > maxDepth {
		return fmt.Errorf("page %d: too deep", id)
	}
	defer func() { d.depth-- }()
	count := int(binary.NativeEndian.Uint16(page[10:]))
	if pageHeader+count*pageElement > len(page) || flag == pageBranch && count == 0 {
		return fmt.Errorf("page %d: %d elements in %d bytes", id, count, len(page))
	}
	var last []byte
	for i := range count {
		at := pageHeader + i*pageElement
		key, err := d.element(id, page, at, flag)
		if err != nil {
			return err
		}
		if i > 0 && bytes.Compare(last, key) >= 0 {
			return fmt.Errorf("page %d: its keys are not in order", id)
		}
		last = key
	}
	return nil
}

// element checks one, and what it refers to, and returns its key.
func (d *database) element(id uint64, page []byte, at int, flag uint16) (key []byte, err error) {
	field := func(n int) uint64 { return uint64(binary.NativeEndian.Uint32(page[at+4*n:])) }
	cut := func(from, size uint64) ([]byte, error) {
		if from > uint64(len(page)) || size > uint64(len(page))-from {
			return nil, fmt.Errorf("page %d: an element ends beyond it", id)
		}
		return page[from : from+size], nil
	}
	if flag == pageBranch {
		if key, err = cut(uint64(at)+field(0), field(1)); err != nil {
			return nil, err
		}
		return key, d.tree(binary.NativeEndian.Uint64(page[at+8:]))
	}
	from := uint64(at) + field(1)
	if key, err = cut(from, field(2)); err != nil {
		return nil, err
	}
	value, err := cut(from+field(2), field(3))
	if err != nil {
		return nil, err
	}
	switch field(0) {
	case 0:
		return key, nil
	case 1:
		return key, d.bucket(id, value)
	default:
		return nil, fmt.Errorf("page %d: an element of kind %d", id, field(0))
	}
}

// bucket checks a bucket, which has a page of its own or is inline.
func (d *database) bucket(id uint64, value []byte) error {
	if len(value) < bucketHeader {
		return fmt.Errorf("page %d: a bucket of %d bytes", id, len(value))
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return d.tree(root)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != pageLeaf {
		return fmt.Errorf("page %d: an inline bucket that is none", id)
	}
	return d.elements(id, inline, pageLeaf)
}
