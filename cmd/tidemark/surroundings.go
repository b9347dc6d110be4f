package main

import (
	"cmp"
	"context"
	"maps"
	"math/bits"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin/leaf"
	"github.com/tidemark-edge/tidemark/twin/outbox"
)

// Bounds of what a report says of surroundings: the rest of it is many modules.
const (
	maxUnroutedReported = 32  // names, beside "others"
	maxReasonReported   = 100 // characters of an override's who and why, and of a lane's problem
	maxProblemReported  = 300 // of the outbox's
)

// around looks at what a report says beside modules and revisions.
type around struct {
	config schema.AgentConfig
	leaf   *leaf.Leaf
	post   *post
	clock  *wallClock
}

// look says how it is now, for a device with that report.
func (a around) look(ctx context.Context, report schema.Report) schema.Surroundings {
	var s schema.Surroundings
	if a.config.Hub != nil {
		up, since := a.leaf.Linked()
		s.Hub = &schema.HubReport{URL: a.config.Hub.URL, Linked: up, Since: since.UTC().Round(0)}
		if err := a.leaf.Refused(); err != nil {
			s.Hub.Problem = err.Error()
		}
	}
	stats, problem := a.post.stats(ctx)
	s.Outbox = &schema.OutboxReport{Lanes: lanes(stats.Lanes, time.Now(), s.Hub != nil && s.Hub.Linked), Problem: clipped(problem, maxProblemReported)}
	s.Unrouted = most(stats.Unrouted)
	for _, o := range a.leaf.Overrides() {
		if len(s.Overrides) < schema.MaxOverridesReported {
			s.Overrides = append(s.Overrides, schema.OverrideReport{Module: o.Module, By: clipped(o.Override.By, maxReasonReported),
				Reason: clipped(o.Override.Reason, maxReasonReported), At: o.Override.At, Until: o.Override.Until})
		}
	}
	commit := report.Revision.Time
	if report.Newest.Time.After(commit) {
		commit = report.Newest.Time
	}
	now := time.Now()
	clock := a.clock.judge(now, commit)
	a.clock.wrote(now) // with the report, or with whatever is written next
	s.Clock = &clock
	return s
}

// lanes are the queues by their routes. A route that was changed may have two: the
// one of before drains. That nothing goes to the hub without a link is no problem
// of the lane.
func lanes(stats []outbox.LaneStats, now time.Time, linked bool) map[string]schema.LaneReport {
	if len(stats) == 0 {
		return nil
	}
	out := map[string]schema.LaneReport{}
	for _, l := range stats {
		one := out[l.Route]
		one.Pending += l.Pending
		one.Bytes += l.Bytes
		one.Delivered += l.Delivered
		one.Refused += l.Refused
		for reason, n := range l.Lost {
			if one.Lost == nil {
				one.Lost = map[string]uint64{}
			}
			one.Lost[reason] += n
		}
		if since := now.Add(-l.Age).UTC().Truncate(time.Second); l.Pending > 0 && (one.Oldest.IsZero() || since.Before(one.Oldest)) {
			one.Oldest = since
		}
		problem := l.LastError
		if l.To == schema.ToHub && !linked {
			problem = ""
		}
		if l.Closed {
			problem = "its queue cannot be opened: what goes by it is refused"
		}
		one.Problem = cmp.Or(one.Problem, clipped(problem, maxReasonReported))
		out[l.Route] = one
	}
	return out
}

// most are the largest counts, with the sum of the others.
func most(counts map[string]uint64) map[string]uint64 {
	const others = "others"
	if len(counts) <= maxUnroutedReported {
		return maps.Clone(counts)
	}
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	out := map[string]uint64{}
	for i, name := range names {
		if i >= maxUnroutedReported {
			name = others
		}
		out[name] += counts[names[i]]
	}
	return out
}

// gist is what of surroundings is news when it changes: counts only when they have
// doubled, what comes and goes with each message not at all.
func gist(s schema.Surroundings) schema.Surroundings {
	s.Unrouted = doublings(s.Unrouted)
	if s.Outbox == nil {
		return s
	}
	lanes := map[string]schema.LaneReport{}
	for name, l := range s.Outbox.Lanes {
		lanes[name] = schema.LaneReport{
			Pending: uint64(bits.Len64(l.Pending / fewPending)), Refused: uint64(bits.Len64(l.Refused)), Lost: doublings(l.Lost), Problem: present(l.Problem),
		}
	}
	s.Outbox = &schema.OutboxReport{Lanes: lanes, Problem: present(s.Outbox.Problem)}
	return s
}

// fewPending is how many messages wait at any moment on a device that sends.
const fewPending = 64

func doublings(counts map[string]uint64) map[string]uint64 {
	out := map[string]uint64{}
	for name, n := range counts {
		out[name] = uint64(bits.Len64(n))
	}
	return out
}

// present keeps of a text that it is there: errors may have moments in them.
func present(text string) string {
	if text == "" {
		return ""
	}
	return "yes"
}
