package output

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/boot"
	"github.com/tidemark-edge/tidemark/internal/durable"
)

// moment is a point in time by the two clocks of a device. The wall clock may
// be wrong, and be set; the other is right, but for one boot only.
type moment struct {
	wall   int64  // ns since 1970
	uptime int64  // ns since the boot, suspended time included
	boot   uint32 // tells boots apart
}

// present is the present moment.
func present() moment {
	return moment{wall: time.Now().UnixNano(), uptime: int64(boot.Uptime()), boot: bootTag()}
}

// bootTag is made of the kernel's identifier of this boot.
var bootTag = sync.OnceValue(func() uint32 {
	id, _ := boot.ID()                                      // without it, each boot looks alike: wrong dates at worst
	return crc32.Checksum([]byte(id+"\n"), castagnoli) &^ 1 // whose bit is mark.begin on the disk; the line is as the kernel writes it
})

// mark says that at that moment the log ended at offset: what is before it was
// printed earlier, what is after it later. Marks are in order of offset. Moments
// need not be in order: the wall clock may be set.
type mark struct {
	moment
	offset int64 // bytes since the first that the module ever printed
	begin  bool  // a run of the module begins here
}

// header says how to find positions in the file.
type header struct {
	base    int64 // how many bytes were cut out of the log before its first
	cutting int64 // not 0: so many more are about to be, or have been just now
}

// ledger is the content of a marks file: a header and up to maxMarks records,
// each with its own checksum.
type ledger struct {
	header
	marks []mark
}

const (
	magic      = "tidelog1"
	headerSize = 32 // magic, base, cutting, checksum
	markSize   = 32 // wall, uptime, offset, boot with begin, checksum
	maxMarks   = 4096
	maxLedger  = headerSize + maxMarks*markSize // 128 KiB

	// maxOffset is beyond what any module prints; more is damage.
	maxOffset = 1 << 60
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal ends a header or record with its checksum.
func seal(b []byte) []byte {
	n := len(b) - 4
	binary.LittleEndian.PutUint32(b[n:], crc32.Checksum(b[:n], castagnoli))
	return b
}

// sealed reports whether seal made b.
func sealed(b []byte) bool {
	n := len(b) - 4
	return binary.LittleEndian.Uint32(b[n:]) == crc32.Checksum(b[:n], castagnoli)
}

func (h header) record() []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	binary.LittleEndian.PutUint64(b[8:], uint64(h.base))
	binary.LittleEndian.PutUint64(b[16:], uint64(h.cutting))
	return seal(b)
}

func (m mark) record() []byte {
	b := make([]byte, markSize)
	binary.LittleEndian.PutUint64(b, uint64(m.wall))
	binary.LittleEndian.PutUint64(b[8:], uint64(m.uptime))
	binary.LittleEndian.PutUint64(b[16:], uint64(m.offset))
	tag := m.boot
	if m.begin {
		tag |= 1
	}
	binary.LittleEndian.PutUint32(b[24:], tag)
	return seal(b)
}

func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(magic)) || !sealed(b[:headerSize]) {
		return header{}, false
	}
	h.base, h.cutting = int64(binary.LittleEndian.Uint64(b[8:])), int64(binary.LittleEndian.Uint64(b[16:]))
	if h.base < 0 || h.base > maxOffset || h.cutting < 0 || h.cutting > maxOffset {
		return header{}, false
	}
	return h, true
}

// parseLedger reads a marks file. What is damaged in it is left out, and whole
// is false: dates are less exact then, and nothing else.
func parseLedger(b []byte) (l ledger, whole bool) {
	l.header, whole = parseHeader(b)
	if len(b) <= headerSize {
		return l, whole
	}
	last := int64(0)
	for record := range slices.Chunk(b[headerSize:], markSize) {
		if len(record) < markSize || !sealed(record) || len(l.marks) == maxMarks {
			whole = false
			continue
		}
		tag := binary.LittleEndian.Uint32(record[24:])
		m := mark{offset: int64(binary.LittleEndian.Uint64(record[16:])), begin: tag&1 == 1, moment: moment{
			wall:   int64(binary.LittleEndian.Uint64(record)),
			uptime: int64(binary.LittleEndian.Uint64(record[8:])),
			boot:   tag &^ 1,
		}}
		if m.offset < last || m.offset > maxOffset {
			whole = false
			continue
		}
		last = m.offset
		l.marks = append(l.marks, m)
	}
	return l, whole
}

// readLedger reads the marks file at path; one that is not there is empty.
func readLedger(path string) (l ledger, whole bool) {
	b, err := durable.Read(path, maxLedger)
	if err != nil {
		return ledger{}, false
	}
	return parseLedger(b)
}

// end is how far the log had come when it was marked last.
func (l ledger) end() int64 {
	if n := len(l.marks); n > 0 {
		return l.marks[n-1].offset
	}
	return l.base
}

// runBegin is where the present or last run began; 0 when that is not known.
func (l ledger) runBegin() int64 {
	for _, m := range slices.Backward(l.marks) {
		if m.begin {
			return m.offset
		}
	}
	return 0
}

// save writes the whole ledger. It need not survive a power cut.
func (l ledger) save(path string) error {
	b := l.header.record()
	for _, m := range l.marks {
		b = append(b, m.record()...)
	}
	return durable.Replace(path, b, 0o600, func(*os.File) error { return nil })
}

// saveAt writes b, a header or record, at its place in the marks file.
func saveAt(path string, b []byte, offset int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, offset)
	return errors.Join(err, f.Close())
}

// add puts m at the end of the marks and of their file. A mark that is less
// than a second after the one before it takes the place of the last: so there
// are marks a second apart, and one where the log ends.
//
// start is where the log begins.
func (l *ledger) add(path string, m mark, start int64) error {
	n := len(l.marks)
	if n >= 2 && !m.begin && !l.marks[n-1].begin && closeTo(l.marks[n-2], l.marks[n-1]) {
		l.marks[n-1] = m
	} else {
		l.marks = append(l.marks, m)
	}
	if len(l.marks) == maxMarks {
		if !l.drop(start) {
			l.thin()
		}
		return l.save(path)
	}
	last := len(l.marks) - 1
	err := saveAt(path, m.record(), headerSize+int64(last)*markSize)
	if errors.Is(err, fs.ErrNotExist) {
		return l.save(path)
	}
	return err
}

// closeTo reports whether b is less than a second after a.
func closeTo(a, b mark) bool {
	const second = 1e9
	return a.boot == b.boot && b.uptime-a.uptime < second
}

// thin makes room: of the older three quarters every other mark goes, but the
// one where the last run began stays. Older output is dated less exactly.
func (l *ledger) thin() {
	begin, old := l.runBegin(), len(l.marks)*3/4
	kept := l.marks[:0]
	for i, m := range l.marks {
		if i >= old || i%2 == 0 || m.begin && m.offset == begin {
			kept = append(kept, m)
		}
	}
	l.marks = kept
}

// drop forgets marks of what is before start, but for the last of them, which
// says when start was printed at the earliest.
func (l *ledger) drop(start int64) (dropped bool) {
	n := 0
	for n+1 < len(l.marks) && l.marks[n+1].offset <= start {
		n++
	}
	l.marks = slices.Delete(l.marks, 0, n)
	return n > 0
}
