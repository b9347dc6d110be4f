package uplink

import (
	"testing"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

// FuzzSpans compares spans with a table of sequences.
func FuzzSpans(f *testing.F) {
	f.Add([]byte{0, 3, 5, 1, 4, 4, 0, 9, 12, 1, 1, 20})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var s spans
		want := map[uint64]string{}
		for ; len(ops) >= 3; ops = ops[3:] {
			x := span{uint64(ops[1]%64) + 1, uint64(ops[1]%64) + 1 + uint64(ops[2]%16), string('a' + rune(ops[0]%2))}
			if ops[0]&4 == 0 {
				s = s.with(x)
				for seq := x.From; seq <= x.To; seq++ {
					if want[seq] == "" {
						want[seq] = x.Reason
					}
				}
			} else {
				s = s.without(x)
				for seq := x.From; seq <= x.To; seq++ {
					delete(want, seq)
				}
			}
			if !s.ordered(0, 100) || s.total() != uint64(len(want)) {
				t.Fatalf("%v: total %d, want %d", s, s.total(), len(want))
			}
			for seq := uint64(1); seq < 100; seq++ {
				if i, in := s.at(seq); in != (want[seq] != "") || in && s[i].Reason != want[seq] {
					t.Fatalf("%d in %v: %v", seq, s, in)
				}
			}
			if part := s.within(10, 20); part.total() != s.total()-s.without(span{From: 10, To: 20}).total() {
				t.Fatalf("within %v: %v", s, part)
			}
		}
		if few := s.fewer(2); len(few) > 2 || len(s) > 0 && (few[0].From != s[0].From || few[len(few)-1].To != s[len(s)-1].To) {
			t.Fatalf("%v as two: %v", s, few)
		}
	})
}

// TestNext walks through a lane that has one of everything.
func TestNext(t *testing.T) {
	l := life{
		Epoch: "e", Live: 12, Late: 21,
		Noted:    spans{{30, 34, twin.LostTTL}, {42, 42, twin.LostDamaged}},
		Deferred: spans{{From: 20, To: 31}, {From: 50, To: 59}},
	}
	record := func(from uint64, count int, boot string) queue.Record {
		return queue.Record{Epoch: "e", From: from, Count: count, Stored: queue.Stamp{Boot: boot}}
	}
	v := view{
		records: []queue.Record{record(15, 4, ""), record(22, 3, ""), record(26, 4, "old"), record(35, 20, ""), record(58, 5, "")},
		upTo:    62, gone: twin.LostBound, expired: func(s queue.Stamp) bool { return s.Boot == "old" },
	}
	walk := func(late bool, at, end uint64) (out spans) {
		for {
			p, ok := l.next(late, at, end, v)
			if !ok {
				return out
			}
			out, at = append(out, p.span), p.To
		}
	}
	same := func(what string, got, want spans) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%s: got %v, want %v", what, got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: got %v, want %v", what, got[i], want[i])
			}
		}
	}
	same("live", walk(false, 9, 70), spans{
		{10, 12, twin.LostSettled}, {13, 14, twin.LostBound}, {15, 18, ""}, {19, 19, twin.LostBound},
		{20, 31, twin.LostDeferred}, {32, 34, twin.LostTTL}, {35, 41, ""}, {42, 42, twin.LostDamaged}, {43, 49, ""},
		{50, 59, twin.LostDeferred}, {60, 62, ""},
	})
	same("late", walk(true, 19, 70), spans{
		{20, 21, twin.LostSettled}, {22, 24, ""}, {25, 25, twin.LostBound}, {26, 29, twin.LostTTL}, {30, 31, twin.LostTTL},
	})
	same("late again", walk(true, 49, 70), spans{{50, 54, ""}, {55, 57, twin.LostBound}, {58, 59, ""}})
	same("within a deferred range", walk(false, 24, 70), nil)
	for _, x := range []struct{ live, late, want uint64 }{{10, 0, 10}, {25, 0, 19}, {25, 22, 22}, {45, 31, 45}, {62, 31, 49}, {62, 55, 55}, {62, 59, 62}} {
		if got := l.removable(x.live, x.late); got != x.want {
			t.Errorf("with %d and late %d confirmed, up to %d can go, want %d", x.live, x.late, got, x.want)
		}
	}
}

// TestNotesAreOfWhatTheHubDoesNotHave covers noting and tidied.
func TestNotesAreOfWhatTheHubDoesNotHave(t *testing.T) {
	l := life{Epoch: "e", Live: 40, Late: 15, Deferred: spans{{From: 10, To: 20}, {From: 50, To: 60}}}
	l = l.noting(1, 55, twin.LostTTL)
	want := spans{{16, 20, twin.LostTTL}, {41, 55, twin.LostTTL}}
	if len(l.Noted) != 2 || l.Noted[0] != want[0] || l.Noted[1] != want[1] {
		t.Fatalf("noted %v, want %v", l.Noted, want)
	}
	l.Live, l.Late = 49, 20
	if l = l.tidied(); len(l.Noted) != 1 || l.Noted[0] != (span{50, 55, twin.LostTTL}) {
		t.Fatalf("tidied %v", l.Noted)
	}
}
