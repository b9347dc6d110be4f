package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// TestKilledServerKeepsWhatItAcknowledged kills the server with SIGKILL while
// records are stored; each that was acknowledged is there, once, in order.
func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	k := &killable{t: t, dir: t.TempDir()}
	var epoch string
	stored := map[uint64]int{}
	for round := range 5 {
		k.start()
		q := open(t, k.nc, nil)
		if epoch != "" && q.Epoch() != epoch {
			t.Error("the epoch changed")
		}
		epoch = q.Epoch()
		ctx, cancel := context.WithCancel(testContext(t))
		stop := time.AfterFunc(time.Duration(100+rand.IntN(100))*time.Millisecond, func() {
			k.cmd.Process.Kill()
			k.cmd.Wait()
			cancel()
		})
		for i := 0; ; i++ {
			r := record(1+i%5, 100, fmt.Sprintf("%d/%d", round, i))
			from, err := q.Append(ctx, r)
			if err != nil {
				break
			}
			if stored[from] != 0 {
				t.Fatalf("sequence %d was given twice", from)
			}
			stored[from] = r.Count
		}
		cancel()
		stop.Stop()
		k.kill()
	}
	k.start()
	there := map[uint64]int{}
	at := uint64(0)
	for _, r := range all(t, open(t, k.nc, nil), 0, 1<<20) {
		if r.From != at+1 {
			t.Fatalf("%d follows %d", r.From, at)
		}
		there[r.From], at = r.Count, r.Last()
	}
	for from, count := range stored {
		if there[from] != count {
			t.Errorf("%d messages from %d on are not there", count, from)
		}
	}
	if len(stored) < 10 {
		t.Errorf("stored %d records only", len(stored))
	}
}

// TestWipedWhileStopped: the stream's files are gone, or everything is.
func TestWipedWhileStopped(t *testing.T) {
	for name, wipe := range map[string]func(stream string) error{
		"everything": func(s string) error { return os.RemoveAll(filepath.Dir(filepath.Dir(s))) },
		"stream":     os.RemoveAll,
		"messages":   func(s string) error { return os.RemoveAll(filepath.Join(s, "msgs")) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			q := open(t, n.connect(), nil)
			add(t, q, record(3, 10, "old"))
			n.restart(func(s string) {
				if err := wipe(s); err != nil {
					t.Fatal(err)
				}
			})
			again := open(t, n.connect(), nil)
			if again.Epoch() == q.Epoch() {
				t.Error("the epoch is still the same")
			}
			add(t, again, record(1, 10, "new"))
			if got := all(t, again, 0, 100); len(got) != 1 {
				t.Error(span(got))
			}
		})
	}
}

// TestWipedWhileRunning: somebody removes the files under the server, which
// goes on writing into files that are nowhere. What is stored from then on has to
// survive a restart.
func TestWipedWhileRunning(t *testing.T) {
	for name, wipe := range map[string]func(*node) string{
		"everything": func(n *node) string { return n.store() },
		"stream":     func(n *node) string { return n.stream() },
		"messages":   func(n *node) string { return filepath.Join(n.stream(), "msgs") },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			q := open(t, n.connect(), func(c *Config) { c.Store = n.store() })
			add(t, q, record(3, 10, "old"))
			before := q.Epoch()
			if err := os.RemoveAll(wipe(n)); err != nil {
				t.Fatal(err)
			}
			from := add(t, q, record(2, 10, "new"))
			if from != 1 || q.Epoch() == before {
				t.Errorf("stored as %d in epoch %s, which was %s before", from, q.Epoch(), before)
			}
			if got := span(all(t, q, 0, 100)); !slices.Equal(got, []string{"1-2"}) {
				t.Error(got)
			}
			n.restart(func(string) {})
			again := open(t, n.connect(), nil)
			if got := span(all(t, again, 0, 100)); !slices.Equal(got, []string{"1-2"}) || again.Epoch() != q.Epoch() {
				t.Errorf("after a restart: %v", got)
			}
		})
	}
}

// TestDeletedStreamIsMadeAnew: a person deletes or purges the stream with NATS's own tool.
func TestDeletedStreamIsMadeAnew(t *testing.T) {
	n := newNode(t)
	nc := n.connect()
	q := open(t, nc, nil)
	add(t, q, record(3, 10, "old"))
	before := q.Epoch()
	if err := q.js.DeleteStream(testContext(t), "OUTBOX_lane"); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Append(testContext(t), record(1, 10, "new")); err == nil {
		t.Log("stored at the first try")
	}
	from := add(t, q, record(1, 10, "new"))
	if q.Epoch() == before || from > 2 {
		t.Errorf("stored as %d in epoch %s", from, q.Epoch())
	}
	before = q.Epoch()
	s, err := q.js.Stream(testContext(t), "OUTBOX_lane")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if again := open(t, nc, nil); again.Epoch() == before {
		t.Error("purged, and the epoch is still the same")
	}
}

// blocks are the files of the messages, oldest first.
func blocks(t *testing.T, stream string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(stream, "msgs", "*.blk"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no block files in %s: %v", stream, err)
	}
	slices.SortFunc(found, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		if a < b {
			return -1
		}
		return 1
	})
	return found
}

func flip(t *testing.T, file string, at int64) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += int64(len(data))
	}
	data[at] ^= 0x55
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, file string, off int64) {
	t.Helper()
	info, err := os.Stat(file)
	if err == nil {
		err = os.Truncate(file, info.Size()-off)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestDamagedFiles harms the files of a queue of 80 records in several blocks, in
// every way, with the server stopped and running: what can be read is read in
// order, nothing is made up, the queue goes on, and no sequence of one epoch names two
// messages.
func TestDamagedFiles(t *testing.T) {
	const size, count = 100 << 10, 80
	harms := map[string]func(t *testing.T, stream string){
		"bit in the first block":      func(t *testing.T, s string) { flip(t, blocks(t, s)[0], 300<<10) },
		"bit in the last record":      func(t *testing.T, s string) { b := blocks(t, s); flip(t, b[len(b)-1], -200) },
		"length in the last record":   func(t *testing.T, s string) { b := blocks(t, s); flip(t, b[len(b)-1], -(size + 300)) },
		"first block is cut":          func(t *testing.T, s string) { truncate(t, blocks(t, s)[0], 150<<10) },
		"last block is cut":           func(t *testing.T, s string) { b := blocks(t, s); truncate(t, b[len(b)-1], 150<<10) },
		"first block is empty":        func(t *testing.T, s string) { truncateTo(t, blocks(t, s)[0]) },
		"last block is empty":         func(t *testing.T, s string) { b := blocks(t, s); truncateTo(t, b[len(b)-1]) },
		"first block is gone":         func(t *testing.T, s string) { os.Remove(blocks(t, s)[0]) },
		"middle block is gone":        func(t *testing.T, s string) { os.Remove(blocks(t, s)[1]) },
		"last block is gone":          func(t *testing.T, s string) { b := blocks(t, s); os.Remove(b[len(b)-1]) },
		"index is gone":               func(t *testing.T, s string) { os.Remove(filepath.Join(s, "msgs", "index.db")) },
		"index is noise":              func(t *testing.T, s string) { noise(t, filepath.Join(s, "msgs", "index.db")) },
		"configuration is noise":      func(t *testing.T, s string) { noise(t, filepath.Join(s, "meta.inf")) },
		"configuration's sum is gone": func(t *testing.T, s string) { os.Remove(filepath.Join(s, "meta.sum")) },
	}
	for name, harm := range harms {
		for _, running := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, running %v", name, running), func(t *testing.T) {
				t.Parallel()
				n := newNode(t)
				q := open(t, n.connect(), func(c *Config) { c.Store = n.store() })
				texts := map[string]map[uint64]string{q.Epoch(): {}}
				for i := range count {
					from := add(t, q, record(2, size/2, fmt.Sprint("before ", i)))
					texts[q.Epoch()][from] = fmt.Sprint("before ", i)
				}
				if running {
					harm(t, n.stream())
				} else {
					n.restart(func(s string) { harm(t, s) })
					q = open(t, n.connect(), func(c *Config) { c.Store = n.store() })
				}
				checkRecords(t, q, texts, count/4)
				for i := range 5 {
					from := add(t, q, record(2, 100, fmt.Sprint("after ", i)))
					if old := texts[q.Epoch()][from]; old != "" {
						t.Errorf("sequence %d names %q and %q", from, old, fmt.Sprint("after ", i))
					}
					if texts[q.Epoch()] == nil {
						texts[q.Epoch()] = map[uint64]string{}
					}
					texts[q.Epoch()][from] = fmt.Sprint("after ", i)
				}
				checkRecords(t, q, texts, 5)
				n.restart(func(string) {})
				q = open(t, n.connect(), nil)
				checkRecords(t, q, texts, 5)
			})
		}
	}
}

// TestARottenConfigurationIsWrittenAnew: JetStream does not know a stream whose
// configuration has rotted. What is there is kept, under a new epoch, and not under
// another one after each start.
func TestARottenConfigurationIsWrittenAnew(t *testing.T) {
	for name, harm := range map[string]func(stream string){
		"a bit":  func(s string) { flip(t, filepath.Join(s, "meta.inf"), -20) },
		"noise":  func(s string) { noise(t, filepath.Join(s, "meta.inf")) },
		"no sum": func(s string) { os.Remove(filepath.Join(s, "meta.sum")) },
		"sum":    func(s string) { noise(t, filepath.Join(s, "meta.sum")) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			q := open(t, n.connect(), nil)
			add(t, q, record(3, 10, "old"))
			before := q.Epoch()
			n.restart(harm)
			q = open(t, n.connect(), nil)
			mended := q.Epoch()
			add(t, q, record(2, 10, "new"))
			n.restart(func(string) {})
			q = open(t, n.connect(), nil)
			if before == mended || q.Epoch() != mended {
				t.Errorf("epoch %s, then %s, then %s: want one new one", before, mended, q.Epoch())
			}
			if got := span(all(t, q, 0, 100)); !slices.Equal(got, []string{"1-3", "4-5"}) {
				t.Error(got)
			}
		})
	}
}

// checkRecords reads everything, from several places on.
func checkRecords(t *testing.T, q *Queue, texts map[string]map[uint64]string, least int) {
	t.Helper()
	got := all(t, q, 0, 1<<20)
	at := uint64(0)
	for _, r := range got {
		if r.From <= at {
			t.Fatalf("%d follows %d", r.From, at)
		}
		at = r.Last()
		items, err := twin.ReadItems(r.Items, r.Count, r.From)
		if err != nil {
			t.Fatal(err)
		}
		known := false
		for _, of := range texts {
			known = known || of[r.From] != "" && bytes.HasPrefix(items[0].Body, []byte(of[r.From]+" 0 "))
		}
		if !known {
			t.Errorf("record %d says %.20q", r.From, items[0].Body)
		}
	}
	if _, last, _ := q.Span(); len(got) > 0 && at != last || len(got) < least {
		t.Errorf("%d records up to %d; the queue says %d", len(got), at, last)
	}
	t.Logf("%d records of %d epochs", len(got), len(texts))
}

func truncateTo(t *testing.T, file string) {
	if err := os.Truncate(file, 0); err != nil {
		t.Fatal(err)
	}
}

func noise(t *testing.T, file string) {
	if err := os.WriteFile(file, []byte("noise"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// smallDisk mounts a file system of size bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// TestFullDisk fills the disk with other things (iotedge#2674): that is told apart from
// other errors, JetStream does not come to harm, and as soon as there is room
// the queue goes on.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, 24<<20)
	n := nodeAt(t, disk)
	q := open(t, n.connect(), func(c *Config) { c.MaxBytes, c.Store = 64<<20, n.store() })
	add(t, q, record(1, 10, "x"))
	other := filepath.Join(disk, "other")
	if err := os.WriteFile(other, make([]byte, 10<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	stored := uint64(1)
	var err error
	for err == nil {
		if _, err = q.Append(testContext(t), record(2, 200<<10, "x")); err == nil {
			stored += 2
		}
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Errorf("the error does not say that the disk is full: %v", err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	before := q.Epoch()
	if from := add(t, q, record(1, 10, "x")); from != stored+1 || q.Epoch() != before {
		t.Errorf("stored as %d, want %d", from, stored+1)
	}
	if got := all(t, q, 0, 1<<20); got[len(got)-1].Last() != stored+1 {
		t.Error(span(got))
	}
}

// TestFailedWrite has JetStream itself find the disk full (nats-server#7654): its stream
// answers nothing any more. Once JetStream is started again the same queue goes on.
func TestFailedWrite(t *testing.T) {
	disk := smallDisk(t, 12<<20)
	n := nodeAt(t, disk)
	q := open(t, n.connect(), func(c *Config) { c.MaxBytes = 64 << 20 })
	stored := 0
	var err error
	for err == nil {
		ctx, cancel := context.WithTimeout(testContext(t), 5*time.Second)
		if _, err = q.Append(ctx, record(2, 400<<10, "x")); err == nil {
			stored++
		}
		cancel()
	}
	if !errors.Is(err, ErrSilent) {
		t.Errorf("the error does not say that JetStream does not answer: %v", err)
	}
	if got := all(t, q, 0, 1<<20); len(got) < stored {
		t.Errorf("%d records can be read of %d", len(got), stored)
	}
	if err := n.srv.DisableJetStream(); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Append(testContext(t), record(1, 10, "x")); !errors.Is(err, ErrStopped) {
		t.Errorf("JetStream is stopped: %v", err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	before := q.Epoch()
	if err := n.enable(); err != nil {
		t.Fatal(err)
	}
	from := add(t, q, record(1, 10, "x"))
	got := all(t, q, 0, 1<<20)
	if q.Epoch() != before || len(got) < stored+1 || got[len(got)-1].From != from {
		t.Errorf("%d records of %d, epoch %s, was %s", len(got), stored+1, q.Epoch(), before)
	}
}

// TestReadersBesideWriters has readers that follow while records are stored and
// removed; each sees everything in order.
func TestReadersBesideWriters(t *testing.T) {
	n := newNode(t)
	q := open(t, n.connect(), nil)
	const records = 300
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			at := uint64(0)
			for at < 2*records {
				grown := q.Grown()
				got, err := q.Read(testContext(t), at, 10_000)
				if err != nil {
					t.Error(err)
					return
				}
				if len(got) == 0 {
					<-grown
				}
				for _, r := range got {
					if r.From != at+1 {
						t.Errorf("%d follows %d", r.From, at)
					}
					at = r.Last()
				}
			}
		})
	}
	for range records {
		add(t, q, record(2, 1000, "x"))
	}
	wait.Wait()
}
