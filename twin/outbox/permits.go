package outbox

import (
	"cmp"
	"fmt"

	"github.com/tidemark-edge/tidemark/schema"
)

// Permits says why these routes cannot be those of a device whose queues may take
// maxBytes on disk, 0 for DefaultMaxBytes: what Route would refuse, before anything
// of the revision is touched.
func Permits(routes []schema.Route, maxBytes int64) error {
	if _, err := newTable(routes, cmp.Or(maxBytes, DefaultMaxBytes)); err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	return nil
}
