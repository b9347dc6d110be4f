package output

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"
)

const second = int64(time.Second)

// printed makes a log of n bytes with these marks.
func printed(t *testing.T, n int, marks ...mark) *Log {
	t.Helper()
	dir := t.TempDir()
	path, err := (&Files{Dir: dir}).Begin("m")
	must(t, err)
	must(t, os.WriteFile(path, bytes.Repeat([]byte("x\n"), n/2), 0o600))
	must(t, ledger{marks: marks}.save(marksPath(dir, "m")))
	l, err := Open(dir, "m")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func at(wall, uptime int64, boot uint32, offset int64) mark {
	return mark{moment: moment{wall: wall * second, uptime: uptime * second, boot: boot}, offset: offset}
}

func TestSince(t *testing.T) {
	l := printed(t, 1000, at(100, 0, 2, 100), at(200, 0, 2, 200), at(300, 0, 2, 300))
	for since, want := range map[int64]int64{50: 0, 99: 0, 100: 100, 150: 100, 200: 200, 299: 200, 300: 300, 1000: 300} {
		if got, err := l.Since(time.Unix(since, 0)); got != want || err != nil {
			t.Errorf("since %d: from %d, want %d (%v)", since, got, want, err)
		}
	}
}

// A device without a battery for its clock boots in 1970, and later knows the
// time; one whose time server errs goes back.
func TestAClockThatIsSetLosesNoOutput(t *testing.T) {
	l := printed(t, 1000, at(100, 0, 2, 100), at(900, 0, 2, 200), at(50, 0, 2, 300), at(60, 0, 2, 400))
	for since, want := range map[int64]int64{40: 0, 55: 0, 100: 100, 500: 100, 900: 400} {
		if got, err := l.Since(time.Unix(since, 0)); got != want || err != nil {
			t.Errorf("since %d: from %d, want %d (%v)", since, got, want, err)
		}
	}
	now := present()
	up, wall := now.uptime/second, now.wall/second
	// Of this boot, 20 s ago in 1970, and 5 s ago in the present.
	l = printed(t, 1000, at(wall-3600, 7, 4, 100), at(10, up-20, now.boot, 200), at(wall-5, up-5, now.boot, 300))
	for ago, want := range map[time.Duration]int64{time.Second: 300, 10 * time.Second: 200, 30 * time.Second: 100, 2 * time.Hour: 0} {
		if got, err := l.Ago(ago); got != want || err != nil {
			t.Errorf("%v ago: from %d, want %d (%v)", ago, got, want, err)
		}
	}
}

func TestMarksAreASecondApartAndWhereTheLogEnds(t *testing.T) {
	path := t.TempDir() + "/m"
	var l ledger
	for i := range 100 {
		m := mark{moment: moment{wall: int64(i) * second / 5, uptime: int64(i) * second / 5}, offset: int64(i)}
		must(t, l.add(path, m, 0))
	}
	got, whole := readLedger(path)
	if !whole || len(got.marks) < 18 || len(got.marks) > 22 || got.end() != 99 {
		t.Errorf("%v, %d marks up to %d", whole, len(got.marks), got.end())
	}
	for i := 1; i < len(got.marks)-1; i++ {
		if d := got.marks[i].uptime - got.marks[i-1].uptime; d < second || d > second+second/5 {
			t.Errorf("mark %d is %v after the last", i, time.Duration(d))
		}
	}
}

func TestMarksAreBounded(t *testing.T) {
	path := t.TempDir() + "/m"
	var l ledger
	const n = 5 * maxMarks
	for i := range n {
		m := mark{moment: moment{uptime: int64(i) * 2 * second}, offset: int64(i), begin: i == maxMarks}
		must(t, l.add(path, m, 0))
		if len(l.marks) >= maxMarks {
			t.Fatalf("%d marks", len(l.marks))
		}
	}
	got, whole := readLedger(path)
	if !whole || len(got.marks) != len(l.marks) || got.end() != n-1 || got.runBegin() != maxMarks {
		t.Errorf("%v, %d marks of %d, up to %d, the run from %d", whole, len(got.marks), len(l.marks), got.end(), got.runBegin())
	}
	if info, err := os.Stat(path); err != nil || info.Size() > maxLedger {
		t.Errorf("%v %v", info, err)
	}
	for i := 1; i < len(got.marks); i++ { // old ones are less exact, not gone
		if d := got.marks[i].offset - got.marks[i-1].offset; d > maxMarks {
			t.Errorf("from %d to the next are %d marks", got.marks[i-1].offset, d)
		}
	}
}

func FuzzLedger(f *testing.F) {
	var b []byte
	b = append(b, header{base: 7, cutting: 3}.record()...)
	b = append(b, mark{moment: moment{1, 2, 4}, offset: 5, begin: true}.record()...)
	b = append(b, mark{moment: moment{1, 2, 4}, offset: 9}.record()...)
	f.Add(b)
	f.Add(b[:50])
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, whole := parseLedger(b)
		last := int64(0)
		for _, m := range l.marks {
			if m.offset < last {
				t.Fatal("out of order")
			}
			last = m.offset
		}
		if l.base < 0 || len(l.marks) > maxMarks {
			t.Fatal("out of bounds")
		}
		again := l.header.record()
		for _, m := range l.marks {
			again = append(again, m.record()...)
		}
		if whole && len(b) > 0 && len(again) != len(b) {
			t.Fatalf("%d bytes become %d", len(b), len(again))
		}
	})
}

// Whatever is in the marks, the log is read.
func TestDamagedMarks(t *testing.T) {
	for i := range 40 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			dir := t.TempDir()
			files := &Files{Dir: dir, Max: testMax}
			m := start(t, files, "m")
			for range 10 {
				m.print(40 << 10)
				files.look("m")
			}
			path := marksPath(dir, "m")
			b, err := os.ReadFile(path)
			must(t, err)
			switch {
			case i < 30: // a bit
				b[i*len(b)/30] ^= 1 << (i % 8)
			case i < 38: // the end
				b = b[:(i-30)*len(b)/8]
			case i == 38:
				b = bytes.Repeat([]byte{0xff}, 10*maxLedger)
			case i == 39:
				b = make([]byte, maxLedger)
			}
			must(t, os.WriteFile(path, b, 0o600))
			if _, next := kept(t, dir, "m"); next != m.next {
				t.Errorf("line %d of %d", next, m.next)
			}
			if got := (&Files{Dir: dir, Max: testMax}).Tail("m", 1); got != fmt.Sprintf("line %d of what the module prints", m.next-1) {
				t.Errorf("tail %q", got)
			}
			files = &Files{Dir: dir, Max: testMax, Warn: func(err error) { t.Error(err) }}
			m.print(400 << 10)
			files.look("m")
			m.print(10 << 10)
			files.look("m")
			if size, next := kept(t, dir, "m"); next != m.next || size > testMax {
				t.Errorf("%d bytes up to line %d of %d", size, next, m.next)
			}
			if l, whole := readLedger(path); !whole || len(l.marks) == 0 {
				t.Errorf("the marks are still damaged: %+v", l)
			}
		})
	}
}
