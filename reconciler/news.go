package reconciler

import (
	"regexp"
	"sync"
)

// news tells what is worth a line in the log: a condition that lasts is logged
// when it begins, not each time it is met, because a device's disk fills from
// one error repeated overnight.
type news struct {
	mu   sync.Mutex
	last map[string]string // by topic; without numbers
}

// Ports, addresses, sizes and durations differ between two errors of one cause.
var numbers = regexp.MustCompile(`[0-9]+`)

// is reports whether message says anything that the latest one on topic did not.
func (n *news) is(topic, message string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	message = numbers.ReplaceAllString(message, "0")
	if n.last[topic] == message {
		return false
	}
	if n.last == nil {
		n.last = map[string]string{}
	}
	n.last[topic] = message
	return true
}

// over reports whether there was anything on topic, and forgets it.
func (n *news) over(topic string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, was := n.last[topic]
	delete(n.last, topic)
	return was
}
