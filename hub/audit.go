package hub

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tidemark-edge/tidemark/twin"
)

// Audit is what the hub holds of one lane of a device: that every sequence is
// there once, in order, as a message or as one that does not come, is for Faults
// to deny.
type Audit struct {
	Lane     string            // the route's name
	Epochs   int               // lives of the lane's queue
	Messages uint64            // sequences that came, live or late
	Lost     map[string]uint64 // sequences that do not come, by reason
	Waiting  uint64            // sequences that are to come late, and have not yet
	Faults   []string          // holes, and what is there twice or out of order; at most maxFaults
}

// maxFaults bounds Audit.Faults.
const maxFaults = 100

// Audit checks every lane of a device, as far back as the hub holds it. The
// device may send meanwhile.
func (m *Messages) Audit(ctx context.Context, device string) ([]Audit, error) {
	lanes := map[string]*ledger{}
	err := m.Read(ctx, Filter{Device: device}, 0, func(one Message) bool {
		name, late := strings.CutSuffix(one.Lane, lateMark)
		l := lanes[name]
		if l == nil {
			l = newLedger(name)
			lanes[name] = l
		}
		if late {
			l.late(one)
		} else {
			l.live(one)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	var out []Audit
	for _, name := range slices.Sorted(maps.Keys(lanes)) {
		l := lanes[name]
		l.compare()
		out = append(out, l.Audit)
	}
	return out, nil
}

// ledger keeps account of a lane, message by message.
type ledger struct {
	Audit
	at, lateAt twin.Position        // the newest that was seen
	first      map[string]uint64    // sequence that is the first of each epoch
	deferred   map[string][]stretch // what the lane says comes late, by epoch, in order
	came       map[string][]stretch // what came late
}

func newLedger(lane string) *ledger {
	return &ledger{Audit: Audit{Lane: lane, Lost: map[string]uint64{}},
		first: map[string]uint64{}, deferred: map[string][]stretch{}, came: map[string][]stretch{}}
}

// stretch is a range of sequences of one epoch.
type stretch struct{ from, to uint64 }

func (l *ledger) fault(format string, v ...any) {
	if len(l.Faults) < maxFaults {
		l.Faults = append(l.Faults, fmt.Sprintf(format, v...))
	}
}

// reach is the stretch that a message stands for.
func reach(m Message) stretch {
	if m.Lost != nil {
		return stretch{m.Lost.From, m.Seq}
	}
	return stretch{m.Seq, m.Seq}
}

// live takes a message of the lane itself: each follows the one before.
func (l *ledger) live(m Message) {
	r := reach(m)
	switch {
	case m.Epoch != l.at.Epoch:
		l.Epochs++
		if _, again := l.first[m.Epoch]; again {
			l.fault("epoch %s is there again, with %d", m.Epoch, r.from)
		} else {
			l.first[m.Epoch] = r.from
		}
	case r.from > l.at.Seq+1:
		l.fault("epoch %s: %d to %d are missing", m.Epoch, l.at.Seq+1, r.from-1)
	case r.from <= l.at.Seq:
		l.fault("epoch %s: %d to %d are there again, after %d", m.Epoch, r.from, r.to, l.at.Seq)
	}
	l.at = twin.Position{Epoch: m.Epoch, Seq: r.to}
	if m.Lost != nil && m.Lost.Reason == twin.LostDeferred {
		l.deferred[m.Epoch] = join(l.deferred[m.Epoch], r)
		return
	}
	l.count(m, r)
}

func (l *ledger) count(m Message, r stretch) {
	if m.Lost == nil {
		l.Messages++
		return
	}
	l.Lost[m.Lost.Reason] += r.to - r.from + 1
}

// late takes a message that waited.
func (l *ledger) late(m Message) {
	r := reach(m)
	if m.Epoch == l.lateAt.Epoch && r.from <= l.lateAt.Seq {
		l.fault("late, epoch %s: %d to %d are there again, after %d", m.Epoch, r.from, r.to, l.lateAt.Seq)
	}
	l.lateAt = twin.Position{Epoch: m.Epoch, Seq: r.to}
	if m.Lost != nil && m.Lost.Reason == twin.LostDeferred {
		return // it says no more than the live lane
	}
	l.came[m.Epoch] = join(l.came[m.Epoch], r)
	l.count(m, r)
}

// join appends a stretch.
func join(to []stretch, r stretch) []stretch {
	if n := len(to); n > 0 && to[n-1].to+1 == r.from {
		to[n-1].to = r.to
		return to
	}
	return append(to, r)
}

// compare holds what came late against what was deferred. The hub's stream loses
// its oldest messages first, so only what came late from before the first live
// message that is still there may have been deferred by one that is gone.
func (l *ledger) compare() {
	for _, epoch := range slices.Sorted(maps.Keys(l.came)) {
		for _, r := range without(l.came[epoch], l.deferred[epoch]) {
			if first, known := l.first[epoch]; known && r.to >= first {
				l.fault("late, epoch %s: %d to %d were not deferred", epoch, r.from, r.to)
			}
		}
	}
	for _, epoch := range slices.Sorted(maps.Keys(l.deferred)) {
		came := l.came[epoch]
		for _, r := range without(l.deferred[epoch], came) {
			if len(came) > 0 && r.from < came[len(came)-1].to {
				l.fault("late, epoch %s: %d to %d are missing", epoch, r.from, r.to)
			} else {
				l.Waiting += r.to - r.from + 1
			}
		}
	}
}

// without returns what of a is not in b. Both are in order.
func without(a, b []stretch) []stretch {
	var out []stretch
	for _, r := range a {
		for _, cut := range b {
			if cut.to < r.from || cut.from > r.to {
				continue
			}
			if cut.from > r.from {
				out = append(out, stretch{r.from, cut.from - 1})
			}
			r.from = cut.to + 1
		}
		if r.from <= r.to {
			out = append(out, r)
		}
	}
	return out
}
