package queue

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

func open(t testing.TB, nc *nats.Conn, change func(*Config)) *Queue {
	t.Helper()
	c := Config{Lane: "lane", MaxBytes: 16 << 20, Warn: func(err error) { t.Log("warning: ", err) }}
	if change != nil {
		change(&c)
	}
	q, err := Open(testContext(t), nc, c)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// record is one with count messages of size bytes, that can be told from
// others.
func record(count, size int, text string) Record {
	var items []byte
	for i := range count {
		body := fmt.Sprintf("%s %d ", text, i)
		items = twin.Item{Count: 1, Module: "sensor", Name: "n", Body: append([]byte(body), make([]byte, max(0, size-len(body)))...)}.Append(items)
	}
	return Record{Count: count, Stored: Stamp{"boot", time.Hour}, Items: items}
}

func add(t testing.TB, q *Queue, r Record) uint64 {
	t.Helper()
	from, err := q.Append(testContext(t), r)
	if err != nil {
		t.Fatal(err)
	}
	return from
}

// all reads everything behind after, in reads of maxBytes.
func all(t testing.TB, q *Queue, after uint64, maxBytes int) (out []Record) {
	t.Helper()
	for {
		got, err := q.Read(testContext(t), after, maxBytes)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			return out
		}
		out, after = append(out, got...), got[len(got)-1].Last()
	}
}

// span describes records: the sequences that they hold.
func span(records []Record) (out []string) {
	for _, r := range records {
		out = append(out, fmt.Sprintf("%d-%d", r.From, r.Last()))
	}
	return out
}

func wantSpan(t testing.TB, q *Queue, first, last uint64) {
	t.Helper()
	if f, l, _ := q.Span(); f != first || l != last {
		t.Errorf("span %d to %d, want %d to %d", f, l, first, last)
	}
}

func TestAppendAndRead(t *testing.T) {
	n := newNode(t)
	q := open(t, n.connect(), nil)
	wantSpan(t, q, 1, 0)
	if got := all(t, q, 0, 100); got != nil {
		t.Fatal(got)
	}
	var want []string
	at := uint64(1)
	for i, count := range []int{1, 3, 1, 200, 2, 1} {
		grown := q.Grown()
		if from := add(t, q, record(count, 20, fmt.Sprint(i))); from != at {
			t.Fatalf("record %d has sequence %d, want %d", i, from, at)
		}
		<-grown
		want = append(want, fmt.Sprintf("%d-%d", at, at+uint64(count)-1))
		at += uint64(count)
	}
	for _, size := range []int{1, 100, 1 << 20, 1 << 30} {
		if got := span(all(t, q, 0, size)); !slices.Equal(got, want) {
			t.Errorf("in reads of %d bytes: %v", size, got)
		}
	}
	for after := range at {
		got, err := q.Read(testContext(t), after, 1)
		if err != nil {
			t.Fatal(err)
		}
		if after == at-1 {
			if len(got) != 0 {
				t.Errorf("behind the end: %v", span(got))
			}
			continue
		}
		if len(got) != 1 || got[0].From > after+1 || got[0].Last() <= after {
			t.Fatalf("behind %d: %v", after, span(got))
		}
	}
	got := all(t, q, 4, 1<<20)
	items, err := twin.ReadItems(got[0].Items, got[0].Count, got[0].From)
	if err != nil || !bytes.HasPrefix(items[0].Body, []byte("2 0 ")) || got[0].Stored != (Stamp{"boot", time.Hour}) || got[0].Epoch != q.Epoch() {
		t.Errorf("%v, %v", got[0], err)
	}
}

// TestSearch reads from anywhere in a long queue, with no place known.
func TestSearch(t *testing.T) {
	n := newNode(t)
	q := open(t, n.connect(), nil)
	for i := range 400 {
		add(t, q, record(1+i%3, 10, "x"))
	}
	_, last, _ := q.Span()
	for after := uint64(0); after < last; after += 61 {
		again := open(t, n.connect(), nil) // knows no places
		got, err := again.Read(testContext(t), after, 1)
		if err != nil || len(got) != 1 || got[0].From > after+1 || got[0].Last() <= after {
			t.Fatalf("behind %d: %v, %v", after, span(got), err)
		}
	}
}

// TestReadingOnSearchesNothing reads a long queue from one end to the other: each
// record is read once, and comes once.
func TestReadingOnSearchesNothing(t *testing.T) {
	nc := newNode(t).connect()
	q := open(t, nc, nil)
	const records = 500
	for range records {
		add(t, q, record(1, 100, "x"))
	}
	before := nc.Stats()
	at, reads := uint64(0), uint64(0)
	for ; at < records; reads++ {
		got, err := q.Read(t.Context(), at, 1000)
		if err != nil {
			t.Fatal(err)
		}
		at = got[len(got)-1].Last()
	}
	after := nc.Stats()
	const search = 10 // for the first
	if asked := after.OutMsgs - before.OutMsgs; asked > reads+search {
		t.Errorf("%d reads asked %d times", reads, asked)
	}
	if came := after.InMsgs - before.InMsgs; came > records+reads+2*search {
		t.Errorf("%d records came in %d messages", records, came)
	}
}

func TestRemove(t *testing.T) {
	n := newNode(t)
	nc := n.connect()
	q := open(t, nc, func(c *Config) { c.MaxBytes = MinBytes })
	for range 20 {
		add(t, q, record(10, 1<<10, "x"))
	}
	before := q.Epoch()
	for _, upTo := range []uint64{5, 10, 95, 3, 10_000} {
		if err := q.Remove(testContext(t), upTo); err != nil {
			t.Fatal(err)
		}
	}
	wantSpan(t, q, 201, 200)
	again := open(t, nc, func(c *Config) { c.MaxBytes = MinBytes })
	wantSpan(t, again, 191, 200) // the newest carries the numbering
	if got := add(t, again, record(1, 1, "x")); got != 201 || again.Epoch() != before {
		t.Errorf("sequence %d", got)
	}
	add(t, q, record(1, 1, "behind one that the other has stored")) // finds out
	if err := q.Remove(testContext(t), 201); err != nil {
		t.Fatal(err)
	}
	wantSpan(t, q, 202, 202)
	if got := span(all(t, q, 201, 100)); !slices.Equal(got, []string{"202-202"}) {
		t.Error(got)
	}
}

// TestRefuseKeepsAndMakesRoom fills a queue that refuses. What was removed makes
// room at once, however little it is.
func TestRefuseKeepsAndMakesRoom(t *testing.T) {
	n := newNode(t)
	q := open(t, n.connect(), func(c *Config) { c.MaxBytes, c.Refuse = MinBytes, true })
	var err error
	for err == nil {
		_, err = q.Append(testContext(t), record(1, 60<<10, "x"))
	}
	if !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	first, last, size := q.Span()
	if first != 1 || last < 40 || size > MinBytes {
		t.Errorf("span %d to %d, %d bytes", first, last, size)
	}
	if err := q.Remove(testContext(t), 1); err != nil {
		t.Fatal(err)
	}
	if from := add(t, q, record(1, 60<<10, "x")); from != last+1 {
		t.Errorf("stored as %d", from)
	}
	if _, err := q.Append(testContext(t), record(1, 60<<10, "x")); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if got := all(t, q, 0, 1<<20); got[0].From != 2 || uint64(len(got)) != last {
		t.Error(span(got))
	}
}

// TestBoundDropsTheOldest leaves a gap that a reader sees.
func TestBoundDropsTheOldest(t *testing.T) {
	n := newNode(t)
	q := open(t, n.connect(), func(c *Config) { c.MaxBytes = MinBytes })
	for range 100 {
		add(t, q, record(2, 30<<10, "x"))
	}
	got := all(t, q, 0, 1<<20)
	first, last, size := q.Span()
	if len(got) < 40 || len(got) > 70 || got[0].From != first || last != 200 || got[len(got)-1].Last() != last || size > MinBytes {
		t.Errorf("%d records from %d, span %d to %d with %d bytes", len(got), got[0].From, first, last, size)
	}
	if err := q.Bound(testContext(t), 2*MinBytes, true); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		add(t, q, record(2, 30<<10, "x"))
	}
	if now, _, _ := q.Span(); now != first {
		t.Errorf("first is %d", now)
	}
}

func TestConcurrentAppends(t *testing.T) {
	n := newNode(t)
	q := open(t, n.connect(), nil)
	var wait sync.WaitGroup
	var mu sync.Mutex
	seen := map[uint64]bool{}
	for range 8 {
		wait.Go(func() {
			for range 20 {
				from, err := q.Append(testContext(t), record(3, 10, "x"))
				mu.Lock()
				if err != nil || seen[from] {
					t.Errorf("%d, %v", from, err)
				}
				seen[from] = true
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if got := all(t, q, 0, 1000); len(got) != 160 || got[159].Last() != 480 {
		t.Errorf("%d records", len(got))
	}
}

func TestRenewAndDelete(t *testing.T) {
	n := newNode(t)
	nc := n.connect()
	q := open(t, nc, nil)
	add(t, q, record(5, 10, "x"))
	before := q.Epoch()
	if err := q.Renew(testContext(t)); err != nil {
		t.Fatal(err)
	}
	got := all(t, q, 0, 1000)
	if q.Epoch() == before || open(t, nc, nil).Epoch() != q.Epoch() || len(got) != 1 || got[0].Epoch != q.Epoch() {
		t.Errorf("epochs %s, %s, %v", before, q.Epoch(), got)
	}
	if err := q.Delete(testContext(t)); !errors.Is(err, ErrWaiting) {
		t.Error(err)
	}
	if err := q.Remove(testContext(t), 5); err != nil {
		t.Fatal(err)
	}
	if err := q.Delete(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Append(testContext(t), record(1, 10, "x")); !errors.Is(err, errDeleted) {
		t.Error(err)
	}
	if there, err := List(testContext(t), nc); err != nil || len(there) != 0 {
		t.Errorf("%+v, %v", there, err)
	}
	if again := open(t, nc, nil); again.Epoch() == q.Epoch() {
		t.Error("the epoch of a new queue is that of the old")
	}
}

func TestBadRecordsAreRefused(t *testing.T) {
	n := newNode(t)
	q := open(t, n.connect(), nil)
	for _, r := range []Record{
		{}, {Count: 1}, {Count: -1, Items: []byte("x")}, {Count: twin.MaxItems + 1, Items: []byte("x")},
		{Count: 1, Items: make([]byte, MaxRecord+1)},
	} {
		if _, err := q.Append(testContext(t), r); err == nil {
			t.Errorf("stored %d messages in %d bytes", r.Count, len(r.Items))
		}
	}
	if from := add(t, q, Record{Count: 1, Items: make([]byte, MaxRecord)}); from != 1 {
		t.Error(from)
	}
	if got := all(t, q, 0, 1); len(got) != 1 || len(got[0].Items) != MaxRecord {
		t.Error(span(got))
	}
	for _, c := range []Config{{}, {Lane: "lane"}, {Lane: "a b", MaxBytes: MinBytes}, {Lane: "a.b", MaxBytes: MinBytes}} {
		if _, err := Open(testContext(t), n.connect(), c); err == nil {
			t.Errorf("opened %+v", c)
		}
	}
}

// TestForeignRecords puts into the stream what the queue never wrote: it is a
// gap like any other.
func TestForeignRecords(t *testing.T) {
	n := newNode(t)
	nc := n.connect()
	q := open(t, nc, nil)
	put := func() {
		for _, h := range []nats.Header{
			nil, {headerFrom: {"0"}}, {headerFrom: {"7"}, headerCount: {"x"}}, {headerFrom: {"7"}, headerCount: {"1"}, headerUp: {"-1"}},
			{headerFrom: {"18446744073709551615"}, headerCount: {"1"}, headerUp: {"1"}}, {headerFrom: {"7"}, headerCount: {"2000"}, headerUp: {"1"}},
		} {
			if _, err := nc.RequestMsg(&nats.Msg{Subject: subjectOf(Config{Lane: "lane"}), Header: h, Data: []byte("x")}, 10*time.Second); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(t, q, record(2, 10, "x"))
	put()
	if from := add(t, q, record(2, 10, "x")); from != 3 {
		t.Error(from)
	}
	if got := span(all(t, q, 0, 1)); !slices.Equal(got, []string{"1-2", "3-4"}) {
		t.Error(got)
	}
	put()
	before := q.Epoch()
	again := open(t, nc, nil)
	if from := add(t, again, record(1, 10, "x")); from != 5 || again.Epoch() == before {
		t.Errorf("%d; the newest record is not ours, and the epoch stays", from)
	}
}
