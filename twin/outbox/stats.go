package outbox

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

// Stats says how an outbox stands. Counts are since Open.
type Stats struct {
	Lanes      []LaneStats       `json:"lanes"`                // by route, sorted by name
	Pending    uint64            `json:"pending"`              // messages that wait, of all lanes
	Bytes      int64             `json:"bytes"`                // on disk, of all lanes
	Stored     uint64            `json:"stored"`               // messages that were taken in
	Refused    uint64            `json:"refused"`              // messages that were answered with an error
	Overrun    int               `json:"overrun"`              // messages that came faster than the disk and were lost before it, unanswered
	Unrouted   map[string]uint64 `json:"unrouted,omitempty"`   // messages that no route takes, by "<module>/<output>"; those of more than maxUnrouted as "others"
	Conditions map[string]uint64 `json:"conditions,omitempty"` // conditions that could not be decided, by route
	LastError  string            `json:"lastError,omitempty"`  // of the twins' way to the hub, or of the disk; empty once it went well again
}

// LaneStats says how a lane stands.
type LaneStats struct {
	Route     string            `json:"route"`               // its name
	To        string            `json:"to"`                  // schema.ToHub, or "<module>/<input>"
	Draining  bool              `json:"draining,omitempty"`  // there is no such route any more
	Closed    bool              `json:"closed,omitempty"`    // its queue could not be opened yet: what goes by it is refused
	Epoch     string            `json:"epoch,omitempty"`     // names this life of the queue
	Pending   uint64            `json:"pending"`             // messages that the other side neither has nor was told of
	Deferred  uint64            `json:"deferred,omitempty"`  // of them, those that follow beside the new ones
	Bytes     int64             `json:"bytes"`               // on disk, those that are done with and not yet removed included
	MaxBytes  int64             `json:"maxBytes"`            // bound of it
	Age       time.Duration     `json:"age,omitempty"`       // of the oldest that waits, at least
	Delivered uint64            `json:"delivered"`           // messages that the other side took
	Refused   uint64            `json:"refused,omitempty"`   // messages that were not stored
	Lost      map[string]uint64 `json:"lost,omitempty"`      // messages that do not come, by reason
	Ranges    []twin.Lost       `json:"ranges,omitempty"`    // the newest of them
	LastError string            `json:"lastError,omitempty"` // why nothing goes on; empty once it went well again
	LastSent  time.Time         `json:"lastSent,omitzero"`   // when the other side last took one
}

const (
	maxUnrouted = 256 // names that are counted by themselves
	maxRanges   = 16  // lost ranges that are remembered of a lane
	others      = "others"
)

// counts is what Stats counts.
type counts struct {
	mu         sync.Mutex
	sub        *nats.Subscription
	stored     uint64
	refused    uint64
	unrouted   map[string]uint64
	conditions map[string]uint64
	lastError  string
}

func (c *counts) watch(sub *nats.Subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sub = sub
}

func (c *counts) took(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stored += uint64(n); n > 0 {
		c.lastError = ""
	}
}

func (c *counts) refuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused++
}

// unroute counts; first says that it is the first of that name.
func (c *counts) unroute(name string) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unrouted == nil {
		c.unrouted = map[string]uint64{}
	}
	if _, known := c.unrouted[name]; !known && len(c.unrouted) >= maxUnrouted {
		name = others
	}
	c.unrouted[name]++
	return c.unrouted[name] == 1
}

func (c *counts) condition(route string, _ error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conditions == nil {
		c.conditions = map[string]uint64{}
	}
	c.conditions[route]++
}

func (c *counts) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastError = err.Error()
}

// warnOnce warns of a problem of the disk, once for as long as it lasts.
func (o *Outbox) warnOnce(err error) {
	o.counts.mu.Lock()
	first := o.counts.lastError == ""
	o.counts.lastError = err.Error()
	o.counts.mu.Unlock()
	if first {
		o.config.Warn(err)
	}
}

// laneCounts is what LaneStats counts. What goes to the hub, the uplink counts.
type laneCounts struct {
	refused   uint64
	delivered uint64
	lost      map[string]uint64
	ranges    []twin.Lost
	lastError string
	lastSent  time.Time
	at        uint64 // up to here a module has it
}

func (l *lane) stored(n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.counts.refused += uint64(n)
	}
}

func (l *lane) delivered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.delivered++
	l.counts.lastError, l.counts.lastSent = "", time.Now()
}

func (l *lane) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.lastError = err.Error()
}

// lost counts a range that does not come.
func (l *lane) lost(reason, epoch string, from, to uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts.lost == nil {
		l.counts.lost = map[string]uint64{}
	}
	l.counts.lost[reason] += to - from + 1
	all := l.counts.ranges
	if i := len(all) - 1; i >= 0 && all[i].Epoch == epoch && all[i].Reason == reason && all[i].To+1 == from {
		all[i].To = to
		return
	}
	all = append(all, twin.Lost{Epoch: epoch, From: from, To: to, Reason: reason})
	l.counts.ranges = slices.Clone(all[max(0, len(all)-maxRanges):])
}

// Stats says how the outbox stands.
func (o *Outbox) Stats(ctx context.Context) (Stats, error) {
	o.counts.mu.Lock()
	s := Stats{
		Stored: o.counts.stored, Refused: o.counts.refused, LastError: o.counts.lastError,
		Unrouted: maps.Clone(o.counts.unrouted), Conditions: maps.Clone(o.counts.conditions),
	}
	if o.counts.sub != nil {
		s.Overrun, _ = o.counts.sub.Dropped()
	}
	o.counts.mu.Unlock()
	o.mu.Lock()
	lanes, plan := slices.Clone(o.lanes), o.plan
	o.mu.Unlock()
	up := o.uplink.Stats()
	for _, l := range lanes {
		one := l.stats()
		if h, ok := up[l.key.name]; ok && !l.key.local {
			if _, last, _ := l.queue.Span(); h.Epoch == one.Epoch {
				one.Pending = h.Pending + last - min(h.Newest, last)
			}
			one.Deferred, one.Delivered, one.LastSent = h.Deferred, h.Delivered, h.LastSent
			one.Lost, one.Ranges = h.Lost, h.Ranges
			if h.LastError != nil {
				one.LastError = h.LastError.Error()
			}
		}
		if first, _, _ := l.queue.Span(); one.Pending > 0 {
			// An error is one of the disk, and is told where it is in the way.
			if oldest, err := l.queue.Read(ctx, max(first-1, l.taken()), 1); err == nil && len(oldest) > 0 {
				one.Age = o.clock.Age(oldest[0].Stored)
			}
		}
		s.Lanes, s.Pending, s.Bytes = append(s.Lanes, one), s.Pending+one.Pending, s.Bytes+one.Bytes
	}
	for i, r := range plan.rules {
		if plan.open[i] == nil {
			s.Lanes = append(s.Lanes, LaneStats{Route: r.Name, To: r.To, MaxBytes: r.bytes, Closed: true})
		}
	}
	slices.SortStableFunc(s.Lanes, func(a, b LaneStats) int { return strings.Compare(a.Route, b.Route) })
	return s, ctx.Err()
}

// taken is up to where a module of this device has it.
func (l *lane) taken() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts.at
}

// passed notes up to where a module of this device has it.
func (l *lane) passed(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.at = seq
}

// stats is how the lane stands; of one to the hub, as far as is known here.
func (l *lane) stats() LaneStats {
	first, last, bytes := l.queue.Span()
	l.mu.Lock()
	defer l.mu.Unlock()
	return LaneStats{
		Route: l.key.name, To: l.rule.To, Draining: l.draining, Epoch: l.queue.Epoch(), Bytes: bytes, MaxBytes: l.rule.bytes,
		Pending: last - min(max(first-1, l.counts.at), last), Delivered: l.counts.delivered, Refused: l.counts.refused,
		Lost: maps.Clone(l.counts.lost), Ranges: l.counts.ranges, LastError: l.counts.lastError, LastSent: l.counts.lastSent,
	}
}
