package database

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"testing"
)

// sound is a database of containerd 1.6 with some leases, and some that are
// deleted.
func sound(t testing.TB) []byte {
	f, err := os.Open("testdata/meta.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzDatabase: whatever is in a database, looking at it ends and says something.
func FuzzDatabase(f *testing.F) {
	whole := sound(f)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte{})
	f.Add(make([]byte, 64<<10))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkPages(bytes.NewReader(b), int64(len(b)))
	})
}

// Every page that is in use is looked at.
func TestDamageOfAnyPageIsFound(t *testing.T) {
	whole := sound(t)
	size := int64(len(whole))
	if err := checkPages(bytes.NewReader(whole), size); err != nil {
		t.Fatalf("a database that is whole: %v", err)
	}
	m, err := newestMeta(bytes.NewReader(whole), size)
	if err != nil {
		t.Fatal(err)
	}
	free := freePages(t, whole, m)
	for id := uint64(2); id < m.high; id++ {
		zeroed := bytes.Clone(whole)
		clear(zeroed[int64(id)*m.page : int64(id+1)*m.page])
		err := checkPages(bytes.NewReader(zeroed), size)
		if (err == nil) != free[id] {
			t.Errorf("page %d (free: %v) zeroed: %v", id, free[id], err)
		}
	}
	for _, length := range []int64{1, 512, m.page, 2 * m.page, 3 * m.page, int64(m.high-1) * m.page} {
		if err := checkPages(bytes.NewReader(whole[:length]), length); err == nil {
			t.Errorf("cut to %d bytes: whole", length)
		}
	}
	// A root that was not written to its end leaves the one before.
	torn := bytes.Clone(whole)
	torn[pageHeader+60] ^= 1
	if err := checkPages(bytes.NewReader(torn), size); err != nil && bytes.Equal(whole[:m.page], torn[:m.page]) {
		t.Errorf("one torn root: %v", err)
	}
}

// freePages are the pages that a whole database does not use.
func freePages(t *testing.T, whole []byte, m meta) map[uint64]bool {
	d := &database{file: bytes.NewReader(whole), page: m.page, high: m.high, seen: map[uint64]bool{}}
	if err := d.freelist(m.free); err != nil {
		t.Fatal(err)
	}
	free := map[uint64]bool{}
	for id := range d.seen {
		if id != m.free {
			free[id] = true
		}
	}
	return free
}
