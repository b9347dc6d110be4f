package fault

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Rot is damage to files that nobody wrote, as flash and sudden ends make it.
type Rot string

// The kinds of damage.
const (
	FlipBit  Rot = "flip a bit"
	Truncate Rot = "truncate"
	ZeroPage Rot = "zero a page"
	Remove   Rot = "remove"
)

// Rots are all kinds of damage.
var Rots = []Rot{FlipBit, Truncate, ZeroPage, Remove}

// Files lists the files below a directory, or the file itself, in order.
func Files(t testing.TB, path string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Do damages a file, at a place that rng chooses.
func (r Rot) Do(t testing.TB, rng *rand.Rand, path string) {
	t.Helper()
	if r == Remove {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	size := info.Size()
	if size == 0 {
		return // nothing that could be damaged
	}
	at := rng.Int64N(size)
	switch r {
	case Truncate:
		err = f.Truncate(at)
	case ZeroPage:
		at -= at % block
		_, err = f.WriteAt(make([]byte, min(block, size-at)), at)
	case FlipBit:
		b := make([]byte, 1)
		if _, err = f.ReadAt(b, at); err == nil {
			b[0] ^= 1 << rng.IntN(8)
			_, err = f.WriteAt(b, at)
		}
	}
	if err != nil {
		t.Fatalf("%s %s: %v", r, path, err)
	}
}
