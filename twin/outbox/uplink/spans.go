package uplink

import (
	"slices"
	"sort"
)

// span is the sequences From to To, both of them included.
type span struct {
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Reason string `json:"reason,omitempty"` // one of twin's Lost constants
}

func (s span) count() uint64 { return s.To - s.From + 1 }

// spans are in order, and do not overlap.
type spans []span

// at finds the span that holds seq, or else the next one behind it. in says
// which; there is none when i is len(s).
func (s spans) at(seq uint64) (i int, in bool) {
	i = sort.Search(len(s), func(i int) bool { return s[i].To >= seq })
	return i, i < len(s) && s[i].From <= seq
}

// with returns s with all of x that it does not hold yet. What touches, and has
// the same reason, becomes one.
func (s spans) with(x span) spans {
	out := make(spans, 0, len(s)+2)
	add := func(y span) {
		if n := len(out); n > 0 && out[n-1].To+1 == y.From && out[n-1].Reason == y.Reason {
			out[n-1].To = y.To
			return
		}
		out = append(out, y)
	}
	from := x.From
	for _, y := range s {
		if from <= x.To && from < y.From {
			add(span{from, min(x.To, y.From-1), x.Reason})
		}
		add(y)
		from = max(from, y.To+1)
	}
	if from <= x.To {
		add(span{from, x.To, x.Reason})
	}
	return out
}

// without returns s without the sequences of x.
func (s spans) without(x span) spans {
	out := make(spans, 0, len(s)+1)
	for _, y := range s {
		if y.To < x.From || y.From > x.To {
			out = append(out, y)
			continue
		}
		if y.From < x.From {
			out = append(out, span{y.From, x.From - 1, y.Reason})
		}
		if y.To > x.To {
			out = append(out, span{x.To + 1, y.To, y.Reason})
		}
	}
	return out
}

// within returns the parts of s that are in from..to.
func (s spans) within(from, to uint64) spans {
	var out spans
	for _, y := range s {
		if y.From, y.To = max(y.From, from), min(y.To, to); y.From <= y.To {
			out = append(out, y)
		}
	}
	return out
}

// total counts the sequences.
func (s spans) total() (n uint64) {
	for _, y := range s {
		n += y.count()
	}
	return n
}

// fewer returns at most most spans: the smallest hole is closed first. What was in
// a hole gets the reason of what is before it.
func (s spans) fewer(most int) spans {
	s = slices.Clone(s)
	for len(s) > most {
		best := 1
		for i := 2; i < len(s); i++ {
			if s[i].From-s[i-1].To < s[best].From-s[best-1].To {
				best = i
			}
		}
		s[best-1].To = s[best].To
		s = slices.Delete(s, best, best+1)
	}
	return s
}

// ordered says whether s is what spans have to be, with all sequences in
// above+1..most.
func (s spans) ordered(above, most uint64) bool {
	for _, y := range s {
		if y.From <= above || y.To < y.From || y.To > most {
			return false
		}
		above = y.To
	}
	return true
}
