package uplink

import (
	"sort"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

// life is what is known of one epoch of a queue. It holds the decisions: what
// comes next in the lane and in the late lane, and what nobody needs any more.
// Nothing here does I/O.
//
// Each sequence above Base belongs to the lane, or, where it is deferred, to the
// late lane. Its owner gives account of it once: as a message; or in a range, with
// the reason why it does not come.
type life struct {
	Epoch    string `json:"epoch"`
	Base     uint64 `json:"base,omitempty"`     // sequences up to here are of earlier epochs
	Known    uint64 `json:"known,omitempty"`    // newest sequence that was seen on the disk
	Live     uint64 `json:"live,omitempty"`     // the most that the hub ever confirmed in the lane
	Late     uint64 `json:"late,omitempty"`     // the most that it ever confirmed in the late lane
	Noted    spans  `json:"noted,omitempty"`    // do not come, and may be gone from the disk
	Deferred spans  `json:"deferred,omitempty"` // come in the late lane; also those that have, for when the hub forgets
}

const (
	maxNoted    = 64  // ranges in life.Noted
	maxOpen     = 64  // deferred ranges that the hub has not got all of
	maxDeferred = 128 // of all
)

// view is what was read of the disk.
type view struct {
	records []queue.Record // in order
	upTo    uint64         // what is not in records, up to here, is not on the disk
	gone    string         // why
	expired func(queue.Stamp) bool
	refused spans // what the hub will not take
}

// piece is what comes next: a record, or the part of one from From to To; or,
// with a Reason, a range.
type piece struct {
	span
	record queue.Record
}

// next is what follows at in the lane, or in the late one, up to end. ok is false
// when there is nothing, or what was read does not say.
func (l *life) next(late bool, at, end uint64, v view) (p piece, ok bool) {
	seq, confirmed := at+1, l.Live
	if seq > end {
		return piece{}, false
	}
	i, deferred := l.Deferred.at(seq)
	switch {
	case late:
		if !deferred {
			return piece{}, false
		}
		confirmed, end = l.Late, min(end, l.Deferred[i].To)
	case deferred:
		// Whole or not at all: see twin.Batch.
		return piece{span: span{seq, l.Deferred[i].To, twin.LostDeferred}}, seq == l.Deferred[i].From
	case i < len(l.Deferred):
		end = min(end, l.Deferred[i].From-1)
	}
	if i, noted := l.Noted.at(seq); noted {
		return piece{span: span{seq, min(end, l.Noted[i].To), l.Noted[i].Reason}}, true
	} else if i < len(l.Noted) {
		end = min(end, l.Noted[i].From-1)
	}
	return v.next(seq, min(end, v.upTo), confirmed)
}

// next is what the disk has from seq to end, of which the hub once confirmed what
// is up to confirmed.
func (v view) next(seq, end, confirmed uint64) (p piece, ok bool) {
	if seq > end {
		return piece{}, false
	}
	i := sort.Search(len(v.records), func(i int) bool { return v.records[i].Last() >= seq })
	if i < len(v.records) {
		r := v.records[i]
		if i, in := v.refused.at(seq); in && r.From <= seq {
			return piece{span: span{seq, min(end, r.Last(), v.refused[i].To), v.refused[i].Reason}}, true
		} else if i < len(v.refused) {
			end = min(end, v.refused[i].From-1)
		}
		if r.From <= seq {
			p := piece{span{seq, min(end, r.Last()), ""}, r}
			if v.expired(r.Stored) {
				p = piece{span: span{p.From, p.To, twin.LostTTL}}
			}
			return p, true
		}
		end = min(end, r.From-1)
	}
	if seq <= confirmed {
		return piece{span: span{seq, min(end, confirmed), twin.LostSettled}}, true
	}
	return piece{span: span{seq, end, v.gone}}, true
}

// lateFrom finds what the late lane sends next, when the hub has its lane up to at
// and the lane itself up to live: the range behind from, up to end. A deferred range
// waits until the hub knows that it is deferred.
func (l *life) lateFrom(at, live uint64) (from, end uint64, ok bool) {
	i, _ := l.Deferred.at(at + 1)
	if i == len(l.Deferred) || l.Deferred[i].To > live {
		return 0, 0, false
	}
	return max(at, l.Deferred[i].From-1), l.Deferred[i].To, true
}

// removable is up to where nobody needs the disk, when the hub has the lane up to
// live and the late lane up to late.
func (l *life) removable(live, late uint64) uint64 {
	if i, _ := l.Deferred.at(late + 1); i < len(l.Deferred) {
		return min(live, max(late, l.Deferred[i].From-1))
	}
	return live
}

// open are the deferred ranges of which the hub has not all, when it has the
// late lane up to late.
func (l *life) open(late uint64) spans {
	i, _ := l.Deferred.at(late + 1)
	return l.Deferred[i:]
}

// deferring returns l with from..to deferred.
func (l life) deferring(from, to uint64) life {
	all := make(spans, 0, len(l.Deferred)+1)
	for i, d := range l.Deferred {
		if i > 0 || len(l.Deferred) < maxDeferred || d.To > l.Late {
			all = append(all, d)
		}
	}
	l.Deferred = append(all, span{From: from, To: to})
	return l
}

// shrunk returns l for when the hub has the lane up to live, and so part of a
// deferred range as messages: they were under way when it was deferred. changed says
// whether there was one.
func (l life) shrunk(live uint64) (_ life, changed bool) {
	i, in := l.Deferred.at(live)
	if !in || l.Deferred[i].To == live {
		return l, false
	}
	all := append(spans(nil), l.Deferred...)
	all[i].From = live + 1
	l.Deferred = all
	return l, true
}

// noting returns l with the reason why from..to does not come, as far as the hub
// has not confirmed it.
func (l life) noting(from, to uint64, reason string) life {
	lost := spans{{from, to, reason}}.without(span{From: 0, To: max(l.Live, l.Base)})
	for _, d := range l.Deferred {
		lost = lost.without(d)
		lost = append(lost, spans{{max(d.From, l.Late+1), d.To, reason}}.within(from, to)...)
	}
	for _, x := range lost {
		l.Noted = l.Noted.with(x)
	}
	l.Noted = l.Noted.fewer(maxNoted)
	return l
}

// tidied returns l without the notes that the hub has.
func (l life) tidied() life {
	var keep spans
	for _, x := range l.Noted {
		rest := spans{x}.without(span{From: 0, To: l.Live})
		for _, d := range l.Deferred {
			rest = append(rest, spans{x}.within(max(d.From, l.Late+1), d.To)...)
		}
		for _, y := range rest {
			keep = keep.with(y)
		}
	}
	l.Noted = keep
	return l
}

// end is the last sequence that the lane, or the late one, has to give account
// of.
func (l *life) end(late bool) uint64 {
	if !late {
		return max(l.Known, l.Base)
	}
	if n := len(l.Deferred); n > 0 {
		return l.Deferred[n-1].To
	}
	return l.Base
}
