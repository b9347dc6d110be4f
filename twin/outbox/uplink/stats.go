package uplink

import (
	"maps"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// Stats says how a lane stands. Delivered, Lost and Ranges are of this process, and
// leave out what was under way when it began.
type Stats struct {
	Linked    bool              // the hub answered the last question about it
	Pending   uint64            // messages up to Newest that the hub has not confirmed, Deferred with them
	Epoch     string            // of the queue, and
	Newest    uint64            // its newest message, when this was so: Run looks a little later
	Deferred  uint64            // of them, those that come in the late lane
	Delivered uint64            // messages that the hub confirmed
	Lost      map[string]uint64 // messages that do not come, by reason (twin's Lost constants)
	Ranges    []twin.Lost       // the newest of those ranges, at most maxRanges
	LastError error             // why nothing is sent; nil when all is well
	LastSent  time.Time         // when the hub last confirmed something, by the monotonic clock
}

// maxRanges is how many ranges of a lane are remembered.
const maxRanges = 16

// tally counts what became of messages. It is told what was sent, and how far the
// hub has come.
type tally struct {
	told      [2][]span // sent and not confirmed, in order; by side: live, late
	delivered uint64
	lost      map[string]uint64
	ranges    []twin.Lost
	sent      time.Time
}

func number(late bool) int {
	if late {
		return 1
	}
	return 0
}

// tell takes what a batch says, in place of what was said of its sequences before.
func (t *tally) tell(late bool, told []span) {
	n := number(late)
	all := t.told[n]
	for len(all) > 0 && all[len(all)-1].From >= told[0].From {
		all = all[:len(all)-1]
	}
	if i := len(all) - 1; i >= 0 && all[i].To >= told[0].From {
		all[i].To = told[0].From - 1
	}
	t.told[n] = append(all, told...)
}

// advance counts what a side had told up to p, which the hub now has.
func (t *tally) advance(s *side, p twin.Position, now time.Time) {
	n := number(s.late)
	at := 0
	for _, x := range t.told[n] {
		if x.From > p.Seq || p.Epoch == "" {
			break
		}
		part := x
		part.To = min(x.To, p.Seq)
		t.count(part, p.Epoch)
		if x.To > p.Seq {
			t.told[n][at].From = p.Seq + 1
			break
		}
		at++
	}
	t.told[n] = slices.Delete(t.told[n], 0, at)
	if p != s.place {
		t.sent = now
	}
}

func (t *tally) count(x span, epoch string) {
	switch x.Reason {
	case "":
		t.delivered += x.count()
		return
	case twin.LostDeferred:
		return
	}
	if t.lost == nil {
		t.lost = map[string]uint64{}
	}
	t.lost[x.Reason] += x.count()
	lost := twin.Lost{Epoch: epoch, From: x.From, To: x.To, Reason: x.Reason}
	if i := len(t.ranges) - 1; i >= 0 && t.ranges[i].Epoch == epoch && t.ranges[i].Reason == x.Reason && t.ranges[i].To+1 == x.From {
		t.ranges[i].To = x.To
		return
	}
	if len(t.ranges) == maxRanges {
		t.ranges = slices.Delete(t.ranges, 0, 1)
	}
	t.ranges = append(t.ranges, lost)
}

// stats is how the lane stands; with what is noted and not told yet.
func (l *lane) stats() Stats {
	life := &l.state.Life
	s := Stats{Delivered: l.tally.delivered, Lost: maps.Clone(l.tally.lost), Ranges: slices.Clone(l.tally.ranges), LastSent: l.tally.sent, Linked: l.live.known}
	for _, err := range []error{l.upkeep.err, l.late.retry.err, l.live.retry.err, l.retry.err} {
		if err != nil {
			s.LastError = err
		}
	}
	first, last, _ := l.Queue.Span()
	live, late := max(l.at(l.live.place), life.Base), l.lateAt()
	if !l.live.seen {
		live = max(live, life.Live)
	}
	if !l.late.seen {
		late = max(late, life.Late)
	}
	for _, n := range life.tidied().Noted {
		if s.Lost == nil {
			s.Lost = map[string]uint64{}
		}
		s.Lost[n.Reason] += n.count()
	}
	waits := spans{}
	if from := max(live+1, first); from <= last {
		waits = waits.with(span{From: from, To: last})
	}
	for _, d := range life.open(late) {
		if d.From = max(d.From, late+1, first); d.From <= d.To {
			s.Deferred += d.count()
			waits = waits.with(d)
		}
	}
	s.Pending, s.Epoch, s.Newest = waits.total(), life.Epoch, last
	return s
}
