package reconciler

import "time"

const (
	// passShare is what part of the time passes may take while one follows the
	// other: one in so many. Each look costs the runtime, too, which has better to
	// do while modules are replaced.
	passShare = 8
	// passCredit is how long passes may take one after the other after a rest.
	passCredit = 250 * time.Millisecond
	// passRest bounds the wait before a pass.
	passRest = time.Second
)

// tempo spaces passes out. A kick after a rest is heeded at once; where fifty
// modules are replaced, what ends between two passes makes one pass. The zero
// value is at rest.
type tempo struct {
	spent time.Duration // of the credit
	ended time.Time     // the pass before
}

// rest takes down a pass and returns how long to wait before the next.
func (t *tempo) rest(began, ended time.Time) time.Duration {
	t.spent = max(0, t.spent-ended.Sub(t.ended)/passShare) + ended.Sub(began)
	t.ended = ended
	return min(passRest, max(0, t.spent-passCredit)*passShare)
}
