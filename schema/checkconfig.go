package schema

import (
	"fmt"
	"time"
)

// Bounds on what a configuration says. What is below them does not work, what is
// above is a mistake: a suffix too large, a device that never looks.
const (
	minPoll        = Duration(time.Second)
	maxPoll        = Duration(24 * time.Hour)
	minOutboxBytes = Bytes(4 << 20) // a few of the largest messages, and how the leaf stores them
	maxOutboxBytes = Bytes(1 << 40)
	minOutboxTTL   = Duration(time.Second)
	maxOutboxTTL   = Duration(365 * 24 * time.Hour)
	maxReserve     = Bytes(1 << 40)
	minLogBytes    = Bytes(64 << 10)
	maxLogBytes    = Bytes(1 << 30)
)

// check notes what is wrong and beyond CUE.
func (c *AgentConfig) check(p *problems) {
	c.Repository.check([]string{"repository"}, p)
	checkSize(c.Outbox.MaxBytes, minOutboxBytes, maxOutboxBytes, []string{"outbox", "maxBytes"}, p)
	checkRange(c.Outbox.TTL, minOutboxTTL, maxOutboxTTL, []string{"outbox", "ttl"}, p)
	checkSize(c.Disk.Reserve, 0, maxReserve, []string{"disk", "reserve"}, p)
	checkSize(c.Logs.MaxBytes, minLogBytes, maxLogBytes, []string{"logs", "maxBytes"}, p)
}

// check notes what is wrong and beyond CUE.
func (c *HubConfig) check(p *problems) { c.Repository.check([]string{"repository"}, p) }

func (r Repository) check(path []string, p *problems) {
	checkRange(r.Poll, minPoll, maxPoll, extend(path, "poll"), p)
}

func checkSize(n, least, most Bytes, path []string, p *problems) {
	if n < least || n > most {
		p.add(path, "%d bytes is not within %s and %s", n, suffixed(least), suffixed(most))
	}
}

// suffixed is a size as a definition says it: "64Ki".
func suffixed(b Bytes) string {
	text := fmt.Sprint(int64(b))
	for _, u := range byteUnits {
		if b > 0 && b%(1<<u.shift) == 0 {
			text = fmt.Sprintf("%d%s", b>>u.shift, u.suffix)
		}
	}
	return text
}
