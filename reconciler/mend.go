package reconciler

import (
	"strings"
	"time"
)

// mends count how often of late a drift of a module was mended, by module. What
// changes a container behind our back, or makes us think so, may do so again at
// once: without a back-off the module would be replaced without end.
type mends map[string]mend

// mend is the latest of them.
type mend struct {
	count int
	at    time.Time
}

// mending reports whether a replaces a container that is not what it was made.
func mending(a Action) bool {
	return a.Verb == Remove && a.Module != "" && strings.HasPrefix(a.Reason, "drift:")
}

// record takes note of a, which was done at now.
func (m mends) record(a Action, now time.Time) {
	if !mending(a) {
		return
	}
	last := m[a.Module]
	if now.Sub(last.at) >= StableAfter {
		last.count = 0
	}
	m[a.Module] = mend{last.count + 1, now}
}

// due is when a may be done: at once the first time, and after a back-off when
// the same was done of late.
func (m mends) due(a Action) time.Time {
	last := m[a.Module]
	if !mending(a) || last.count == 0 {
		return time.Time{}
	}
	return last.at.Add(retryAfter(last.count - 1))
}
