package uplink

import (
	"testing"

	"github.com/tidemark-edge/tidemark/twin/outbox/queue/queuetest"
)

// TestFakeQueueKeepsTheContract: what the model is tested with is as the real one.
func TestFakeQueueKeepsTheContract(t *testing.T) {
	queuetest.Contract(t, func(*testing.T) queuetest.Subject {
		w := plainWorld(Lane{Name: "lane"})
		q := w.lanes[0].queue
		return queuetest.Subject{Queue: q, Store: q.store}
	})
}
