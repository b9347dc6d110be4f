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

	// BackoffAfterNone is the second wait of who does not wait at first.
	BackoffAfterNone = time.Second

	// StableAfter is how long a module must run before its restarts count from
	// zero again.
	StableAfter = 10 * time.Minute
)

// Backoff is the wait before the n-th retry, n counted from 0: min(Min·2ⁿ, Max).
// With Min 0 there is none before the first; the waits after it begin at
// BackoffAfterNone. Max 0 is DefaultBackoffMax, or Min if that is longer.
func Backoff(r schema.Restart, n int) time.Duration {
	wait, most := time.Duration(r.Min), time.Duration(r.Max)
	if wait <= 0 {
		if n <= 0 {
			return 0
		}
		wait, n = BackoffAfterNone, n-1
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

// retryAfter is the wait before the n-th retry, n counted from 0, of what has no
// back-off of its own.
func retryAfter(n int) time.Duration {
	return Backoff(schema.Restart{Min: schema.Duration(DefaultBackoffMin), Max: schema.Duration(DefaultBackoffMax)}, n)
}
