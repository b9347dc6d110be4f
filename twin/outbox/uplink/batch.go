package uplink

import (
	"context"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

// batch is what is sent next of a side.
type batch struct {
	twin.Batch        // without its items
	to         uint64 // last sequence; From-1 for a question
	n          int    // items
	items      []byte // not ours to change: they may be a record's
	told       []span // what it says of its sequences; no Reason: they are messages
}

// encode appends it to out as it is sent.
func (b *batch) encode(out []byte) []byte {
	return append(append(out, b.Frame(b.n, nil)...), b.items...)
}

// question is a batch with nothing in it.
func (s *side) question() batch {
	return batch{Batch: twin.Batch{Lane: s.wire, Epoch: s.lane.state.Life.Epoch, From: 1}}
}

// next makes the batch of what follows s.sent: at most size bytes of items, unless
// the first is larger. There is none where n is 0.
func (s *side) next(ctx context.Context, size int) (batch, error) {
	l := s.lane
	if at, owes := l.owes(s.late, s.sent); owes {
		end := l.state.Old.end(false)
		if s.late {
			_, end, _ = l.state.Old.lateFrom(at, l.oldLive())
		}
		return s.fill(l.state.Old, at, end, size, view{upTo: end, gone: twin.LostWiped}), nil
	}
	at := l.at(s.sent)
	_, end, _ := l.Queue.Span()
	if s.late {
		from, to, ok := l.state.Life.lateFrom(at, l.at(l.live.place))
		if !ok {
			return batch{}, nil
		}
		at, end = from, to
	}
	v := view{gone: twin.LostBound, expired: s.expired, refused: l.refused}
	if i, in := l.state.Life.Deferred.at(at + 1); s.late || !in {
		// What is deferred is not read for what is new.
		to := end
		if !s.late && i < len(l.state.Life.Deferred) {
			to = min(end, l.state.Life.Deferred[i].From-1)
		}
		if err := s.read(ctx, at, to, size); err != nil {
			return batch{}, err
		}
		v.records, v.upTo = s.window, s.upTo
	}
	return s.fill(&l.state.Life, at, end, size, v), nil
}

func (s *side) expired(stored queue.Stamp) bool {
	return s.lane.TTL > 0 && s.lane.env.clock.Age(stored) > s.lane.TTL
}

// fill takes pieces behind at up to end.
func (s *side) fill(l *life, at, end uint64, size int, v view) batch {
	b := batch{Batch: twin.Batch{Lane: s.wire, Prev: s.sent, Epoch: l.Epoch, From: at + 1}, to: at}
	most := twin.MaxItems
	if s.most > 0 && at < s.until {
		most = s.most
	}
	var lost span // the range that b ends with, not in items yet
	flush := func() {
		if lost.Reason != "" {
			b.items = twin.Item{Count: lost.count(), Reason: lost.Reason}.Append(b.items)
			b.n++
			b.told = append(b.told, lost)
			lost = span{}
		}
	}
	room := func() int {
		if lost.Reason != "" {
			return most - b.n - 1
		}
		return most - b.n
	}
	for {
		p, ok := l.next(s.late, b.to, end, v)
		if !ok {
			break
		}
		if p.Reason == "" {
			if room() < 1 {
				break
			}
			var items []byte
			if items, p = p.cut(size-len(b.items), room(), b.to < b.From); p.To < p.From {
				break
			}
			if p.Reason == "" {
				flush()
				if b.items == nil {
					b.items = items[:len(items):len(items)]
				} else {
					b.items = append(b.items, items...)
				}
				b.n, b.to = b.n+int(p.count()), p.To
				b.told = append(b.told, p.span)
				continue
			}
		}
		if lost.Reason == p.Reason && p.Reason != twin.LostDeferred {
			lost.To, b.to = p.To, p.To
			continue
		}
		if room() < 1 {
			break
		}
		flush()
		lost, b.to = p.span, p.To
	}
	flush()
	return b
}

// cut returns as many encoded messages of the piece as go into size bytes, at most
// most; one at least, where some is true. It returns the piece of those; a range where
// they cannot be read.
func (p piece) cut(size, most int, some bool) ([]byte, piece) {
	r := p.record
	if p.From == r.From && p.To == r.Last() && len(r.Items) <= size && r.Count <= most {
		return r.Items, p
	}
	if !some && p.From == r.From && p.To == r.Last() {
		p.To = p.From - 1 // it goes first, next time
		return nil, p
	}
	items, err := twin.ReadItems(r.Items, r.Count, r.From)
	if err != nil || len(items) != r.Count {
		p.Reason = twin.LostDamaged
		return nil, p
	}
	var out []byte
	to := p.From - 1
	for _, i := range items[p.From-r.From : p.To-r.From+1] {
		if to-p.From+1 == uint64(most) || len(out)+i.Size() > size && !(some && len(out) == 0) {
			break
		}
		out, to = i.Append(out), to+1
	}
	p.To = to
	return out, p
}
