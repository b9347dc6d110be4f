package ledger

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// same reports whether two stores show the same.
func same(a, b map[string]Entry) bool {
	return maps.EqualFunc(a, b, func(a, b Entry) bool {
		return a.declaredAs(b) && a.Countdown == b.Countdown && bytes.Equal(a.Document.Encode(), b.Document.Encode())
	})
}

// testStore is a store whose warnings are kept.
type testStore struct {
	*Ledger
	mu       sync.Mutex
	warnings []string
}

func openTestStore(t testing.TB, dir string) *testStore {
	t.Helper()
	s := &testStore{}
	var err error
	s.Ledger, err = Open(dir, "d1", func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.warnings = append(s.warnings, err.Error())
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// declared is a definition of the device d1 with these modules.
func declared(modules ...string) schema.Desired {
	d := schema.Desired{Revision: schema.Revision{Commit: "c0ffee"}, Device: "d1", Tags: map[string]any{"site": "hannover"}}
	for _, m := range modules {
		d.Modules = append(d.Modules, schema.Module{Name: m, Twin: schema.TwinSpec{Desired: map[string]any{"interval": 5}}})
	}
	return d
}

// bump sets a reported value of a module.
func (s *testStore) bump(module string, value any) error {
	return s.commit(func(get func(string) (Entry, bool)) ([]Entry, error) {
		e, _ := get(module)
		next, changed, err := twin.Merge(e.Document.Properties.Reported, map[string]any{"value": value}, time.Unix(0, 0))
		if err != nil || !changed {
			return nil, err
		}
		e.Document.Properties.Reported = next
		return []Entry{e}, nil
	})
}

func (s *testStore) must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// states are what a store showed after each of some commits, and how long its
// journal was then.
type states struct {
	content []byte
	ends    []int64
	shown   []map[string]Entry
}

// history makes a journal with twins, a removed one, and some updates.
func history(t testing.TB) states {
	t.Helper()
	dir := t.TempDir()
	s := openTestStore(t, dir)
	var h states
	note := func() {
		h.ends = append(h.ends, s.journal.end)
		h.shown = append(h.shown, maps.Clone(s.entries))
	}
	note()
	d := declared("a", "b", "gone")
	d.Modules[0].Twin.Reported = "value?: _\n"
	if _, _, err := s.Declare(d, time.Now()); err != nil {
		t.Fatal(err)
	}
	note()
	d.Modules = d.Modules[:2]
	if _, _, err := s.Declare(d, time.Now()); err != nil {
		t.Fatal(err)
	}
	note()
	for i := range 2 {
		s.must(t, s.bump("a", i))
		note()
		s.must(t, s.bump("b", strings.Repeat("x", i)))
		note()
	}
	end := s.journal.end
	s.must(t, s.Close())
	content, err := os.ReadFile(filepath.Join(dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	if len(bytes.Trim(content[end:], "\x00")) != 0 {
		t.Fatal("there is something behind the end")
	}
	h.content = content[:end]
	return h
}

// reopen opens a store on a journal of this content.
func reopen(t testing.TB, content []byte) *testStore {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "store") // many of them, with nothing to sync
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "journal"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return openTestStore(t, dir)
}

func TestStoreReadsWhatItWrote(t *testing.T) {
	h := history(t)
	s := reopen(t, h.content)
	if want := h.shown[len(h.shown)-1]; !same(s.entries, want) {
		t.Errorf("read %+v\nwant %+v", s.entries, want)
	}
	if len(s.warnings) != 0 {
		t.Error(s.warnings)
	}
	if e := s.entries["gone"]; !e.Document.Removed || e.Document.Properties.Desired.Version != 2 {
		t.Errorf("removed module: %+v", e)
	}
}

// scanned is what can be read of a journal of this content, in memory.
func scanned(t testing.TB, content []byte) (*Ledger, contents) {
	t.Helper()
	c, err := scanJournal(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	s := &Ledger{device: "d1", entries: map[string]Entry{}}
	if err := s.take(c); err != nil {
		t.Fatal(err)
	}
	return s, c
}

// A power cut ends the file anywhere. What was acknowledged before is there,
// what was not may be; and it is no damage, which a person would be told of.
func TestJournalCutAtEveryByte(t *testing.T) {
	t.Parallel()
	h := history(t)
	// Below that length there is no such file: it gets its name with its beginning.
	for n := len(journalMagic); n <= len(h.content); n++ {
		state := 0
		for state+1 < len(h.ends) && h.ends[state+1] <= int64(n) {
			state++
		}
		whole := slices.Contains(h.ends, int64(n))
		for _, space := range []int{0, 4096} { // as it is, and with space that was allocated
			content := append(bytes.Clone(h.content[:n]), make([]byte, space)...)
			s, c := scanned(t, content)
			if c.lost != 0 {
				t.Fatalf("cut at %d: %d bytes are said to be lost", n, c.lost)
			}
			for module, want := range h.shown[state] {
				want, got := want.Document.Properties, s.entries[module].Document.Properties
				if got.Desired.Version < want.Desired.Version || got.Reported.Version < want.Reported.Version {
					t.Fatalf("cut at %d: twin %q is %+v, want %+v", n, module, got, want)
				}
			}
			if whole && !same(s.entries, h.shown[state]) {
				t.Fatalf("cut at %d: %+v", n, s.entries)
			}
			if whole || n%17 == 0 {
				goesOn(t, reopen(t, content), 0)
			}
		}
	}
}

// goesOn checks that a store takes an update and that the next one reads it.
func goesOn(t *testing.T, s *testStore, warnings int) {
	t.Helper()
	s.must(t, s.bump("a", "after"))
	s.must(t, s.Close())
	again := openTestStore(t, filepath.Dir(s.journal.path))
	if len(s.warnings) != warnings || len(again.warnings) != 0 || !same(again.entries, s.entries) {
		t.Fatalf("went on with %+v, %v; read back %+v, %v", s.entries, s.warnings, again.entries, again.warnings)
	}
	s.must(t, again.Close())
}

// Storage that lies loses one record, not the rest; it is reported, the file is
// kept, and no version goes back, not even that of a twin that is lost.
func TestJournalWithEveryByteDamaged(t *testing.T) {
	t.Parallel()
	h := history(t)
	last := h.shown[len(h.shown)-1]
	for n := range h.content {
		for i, flip := range []byte{0x01, 0x80, h.content[n]} { // the last makes it zero
			if flip == 0 {
				continue
			}
			content := bytes.Clone(h.content)
			content[n] ^= flip
			c, err := scanJournal(bytes.NewReader(content), int64(len(content)))
			if err != nil {
				t.Fatal(err)
			}
			if i == n%3 {
				scanned(t, content) // what is whole can be used
			}
			// A zero byte in the last record looks like a write that was cut off.
			if lastRecord := int64(n) >= h.ends[len(h.ends)-2]; c.lost == 0 && !lastRecord {
				t.Fatalf("byte %d: nothing is lost", n)
			}
			if c.lost > 0 && n%23 == 0 && i == n%3 {
				damaged(t, content, last)
			}
		}
	}
}

// damaged checks what becomes of a damaged journal after which this was shown.
func damaged(t *testing.T, content []byte, last map[string]Entry) {
	t.Helper()
	s := reopen(t, content)
	if _, _, err := s.Declare(declared("a", "b", "gone", "new"), time.Now()); err != nil {
		t.Fatal(err)
	}
	for module, was := range last {
		s.must(t, s.bump(module, "after"))
		now, was := s.entries[module].Document.Properties, was.Document.Properties
		if now.Desired.Version < was.Desired.Version || now.Reported.Version <= was.Reported.Version {
			t.Fatalf("versions of %q went from %d, %d to %d, %d", module,
				was.Desired.Version, was.Reported.Version, now.Desired.Version, now.Reported.Version)
		}
	}
	kept, _ := filepath.Glob(s.journal.path + ".broken-*")
	if len(kept) != 1 {
		t.Fatalf("kept %v", kept)
	}
	if was, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(was, content) {
		t.Fatalf("what is kept is not what was there: %v", err)
	}
	goesOn(t, s, 1)
}

func TestJournalThatIsNone(t *testing.T) {
	for name, content := range map[string][]byte{
		"empty": nil, "short": []byte("TM"), "text": []byte(strings.Repeat("hello\n", 1000)), "zeros": make([]byte, 10000),
		"magics": bytes.Repeat(recordMagic, 5000), "huge length": append([]byte(journalMagic+string(recordMagic)), 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4),
	} {
		s := reopen(t, content)
		s.must(t, s.bump("a", 1))
		s.must(t, s.Close())
		again := openTestStore(t, filepath.Dir(s.journal.path))
		if _, ok := again.Get("a"); !ok || len(again.warnings) > 0 {
			t.Errorf("%s: %v", name, again.warnings)
		}
	}
}

func TestStoreOfAnotherDevice(t *testing.T) {
	h := history(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journal"), h.content, 0o600); err != nil {
		t.Fatal(err)
	}
	var warned error
	s, err := Open(dir, "d2", func(err error) { warned = err })
	if err != nil || len(s.entries) != 0 || warned == nil {
		t.Errorf("entries %v, warned %v, error %v", s.entries, warned, err)
	}
	s.Close()
}

// The records of many updates do not pile up.
func TestJournalIsCompacted(t *testing.T) {
	s := openTestStore(t, t.TempDir())
	text := strings.Repeat("x", 8<<10)
	var largest int64
	for i := range 400 {
		s.must(t, s.bump("a", fmt.Sprint(i, text)))
		info, err := os.Stat(s.journal.path)
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, info.Size())
	}
	if largest > 4*compactAbove {
		t.Errorf("the journal had %d bytes", largest)
	}
	s.must(t, s.Close())
	again := openTestStore(t, filepath.Dir(s.journal.path))
	if !same(again.entries, s.entries) || len(again.warnings) > 0 {
		t.Errorf("read back %v", again.warnings)
	}
}

func TestCommitsAtTheSameTime(t *testing.T) {
	s := openTestStore(t, t.TempDir())
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Go(func() {
			for i := range 50 {
				if err := s.bump(fmt.Sprintf("m%d", worker%4), fmt.Sprint(worker, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	s.must(t, s.Close())
	again := openTestStore(t, filepath.Dir(s.journal.path))
	if !same(again.entries, s.entries) {
		t.Errorf("read back %+v, want %+v", again.entries, s.entries)
	}
	for worker := range 4 {
		e, _ := again.Get(fmt.Sprintf("m%d", worker))
		if v := e.Document.Properties.Reported.Version; v != 100 {
			t.Errorf("version %d after 100 updates", v)
		}
	}
	if err := s.bump("a", 1); err == nil {
		t.Error("a closed store takes updates")
	}
}

// A damaged journal on a full disk is still read.
func TestDamageOnAFullDisk(t *testing.T) {
	h := history(t)
	disk := harness.SmallDisk(t, "256k")
	content := bytes.Clone(h.content)
	content[h.ends[4]+40] ^= 1
	if err := os.WriteFile(filepath.Join(disk, "journal"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	filler := harness.Fill(t, disk)
	s := openTestStore(t, disk)
	if _, ok := s.Get("b"); !ok || len(s.warnings) != 1 {
		t.Errorf("entries %v, warnings %v", s.entries, s.warnings)
	}
	if err := s.bump("a", 1); refusal(err).Code != twin.CodeNoSpace {
		t.Errorf("update: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.must(t, s.bump("a", "room"))
	s.must(t, s.Close())
	if again := openTestStore(t, disk); !same(again.entries, s.entries) || len(again.warnings) > 0 {
		t.Errorf("read back %+v, %v", again.entries, again.warnings)
	}
}

func FuzzJournal(f *testing.F) {
	h := history(f)
	f.Add(h.content)
	f.Add(h.content[:len(h.content)-1])
	f.Add([]byte(journalMagic))
	f.Fuzz(func(t *testing.T, content []byte) {
		c, err := scanJournal(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		if c.end < 0 || c.end > c.size || c.lost < 0 || c.lost > c.size {
			t.Fatalf("end %d, lost %d of %d", c.end, c.lost, c.size)
		}
		for _, r := range c.latest {
			_, _ = r.entry()
		}
	})
}
