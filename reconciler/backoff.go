package reconciler

import (
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// The back-off of everything that has none of its own. The curve is Azure IoT
// Edge's, without its final give-up (iotedge#6971).
const (
	DefaultBackoffMin = 10 * time.Second
	DefaultBackoffMax = 5 * time.Minute

	// StableAfter is how long a module must run before its restarts count from
	// zero again.
	StableAfter = 10 * time.Minute
)

// Backoff is the wait before the n-th retry, n counted from 0:
// min(Min·2ⁿ, Max). A zero bound takes its default.
func Backoff(r schema.Restart, n int) time.Duration {
	wait, most := time.Duration(r.Min), time.Duration(r.Max)
	if wait <= 0 {
		wait = DefaultBackoffMin
	}
	if most <= 0 {
		most = max(wait, DefaultBackoffMax)
	}
	for ; n > 0 && wait < most; n-- {
		if wait > most/2 {
			return most
		}
		wait *= 2
	}
	return min(wait, most)
}
