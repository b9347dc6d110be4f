// Package queuetest says what whoever reads a queue may rely on: of the real one,
// and of those that tests put in its place.
package queuetest

import (
	"context"
	"testing"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

// Queue is what a reader sees; see uplink.Queue.
type Queue interface {
	Epoch() string
	Read(ctx context.Context, after uint64, maxBytes int) ([]queue.Record, error)
	Span() (first, last uint64, bytes int64)
	Remove(ctx context.Context, upTo uint64) error
	Renew(ctx context.Context) error
	Grown() <-chan struct{}
}

// Subject is a new queue, with nothing in it.
type Subject struct {
	Queue
	Store func(count int) // stores so many messages as one record
}

// Contract checks a queue that open makes.
func Contract(t *testing.T, open func(t *testing.T) Subject) {
	for name, check := range map[string]func(t *testing.T, s Subject){
		"nothing is there":   empty,
		"read from anywhere": anywhere,
		"grows":              grows,
		"removed":            removed,
		"renewed":            renewed,
	} {
		t.Run(name, func(t *testing.T) { check(t, open(t)) })
	}
}

func empty(t *testing.T, s Subject) {
	wantSpan(t, s, 1, 0)
	if got := read(t, s, 0, 1<<20); len(got) > 0 {
		t.Errorf("there is %d to %d", got[0].From, got[0].Last())
	}
	if s.Epoch() == "" {
		t.Error("it has no epoch")
	}
}

// counts are messages of the records that most checks store: 1-3, 4-4, 5-9, 10-11.
var counts = []int{3, 1, 5, 2}

// anywhere: records come whole and in order, also where one is only partly behind
// the place; at least one, however little is asked for; and none at the end.
func anywhere(t *testing.T, s Subject) {
	fill(s)
	wantSpan(t, s, 1, 11)
	for after := range uint64(11) {
		for _, most := range []int{1, 1 << 20} {
			got := read(t, s, after, most)
			if len(got) == 0 || got[0].From > after+1 || got[0].Last() <= after {
				t.Fatalf("behind %d, %d bytes: %+v", after, most, got)
			}
			if most == 1 && len(got) > 1 || most > 1 && got[len(got)-1].Last() != 11 {
				t.Errorf("behind %d, %d bytes: %d records", after, most, len(got))
			}
			for i, r := range got {
				if i > 0 && r.From != got[i-1].Last()+1 {
					t.Errorf("behind %d: %d follows %d", after, r.From, got[i-1].Last())
				}
				if items, err := twin.ReadItems(r.Items, r.Count, r.From); err != nil || len(items) != r.Count || r.Epoch != s.Epoch() {
					t.Errorf("behind %d: %+v: %v", after, r, err)
				}
			}
		}
	}
	if got := read(t, s, 11, 1<<20); len(got) > 0 {
		t.Errorf("behind the end: %+v", got)
	}
}

func grows(t *testing.T, s Subject) {
	fill(s)
	grown := s.Grown()
	select {
	case <-grown:
		t.Fatal("it grew by itself")
	default:
	}
	s.Store(1)
	<-grown
	wantSpan(t, s, 1, 12)
}

// removed: what is not needed is not in the span, and what is behind it is
// untouched; the sequence goes on when nothing is left.
func removed(t *testing.T, s Subject) {
	fill(s)
	for _, step := range []struct{ upTo, first uint64 }{{4, 5}, {6, 7}, {2, 7}, {11, 12}, {99, 12}} {
		if err := s.Remove(t.Context(), step.upTo); err != nil {
			t.Fatal(err)
		}
		wantSpan(t, s, step.first, 11)
		if step.first == 12 {
			continue
		}
		if got := read(t, s, step.first-1, 1<<20); len(got) == 0 || got[0].From > step.first || got[len(got)-1].Last() != 11 {
			t.Errorf("up to %d is removed: %+v", step.upTo, got)
		}
	}
	s.Store(2)
	wantSpan(t, s, 12, 13)
	if got := read(t, s, 11, 1<<20); len(got) != 1 || got[0].From != 12 {
		t.Errorf("behind what was removed: %+v", got)
	}
}

// renewed: what is there stays, under its numbers and another epoch.
func renewed(t *testing.T, s Subject) {
	fill(s)
	before := s.Epoch()
	if err := s.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Epoch() == before || s.Epoch() == "" {
		t.Errorf("the epoch is %q, and was %q", s.Epoch(), before)
	}
	wantSpan(t, s, 1, 11)
	s.Store(1)
	got := read(t, s, 0, 1<<20)
	if len(got) != len(counts)+1 || got[len(got)-1].From != 12 {
		t.Fatalf("%+v", got)
	}
	for _, r := range got {
		if r.Epoch != s.Epoch() {
			t.Errorf("%d is of epoch %q, not %q", r.From, r.Epoch, s.Epoch())
		}
	}
}

func fill(s Subject) {
	for _, n := range counts {
		s.Store(n)
	}
}

func read(t *testing.T, s Subject, after uint64, maxBytes int) []queue.Record {
	t.Helper()
	got, err := s.Read(t.Context(), after, maxBytes)
	if err != nil {
		t.Fatalf("read behind %d: %v", after, err)
	}
	return got
}

func wantSpan(t *testing.T, s Subject, first, last uint64) {
	t.Helper()
	if f, l, _ := s.Span(); f != first || l != last {
		t.Errorf("the span is %d to %d, want %d to %d", f, l, first, last)
	}
}
