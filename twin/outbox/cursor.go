package outbox

import (
	"errors"

	"github.com/tidemark-edge/tidemark/twin"
)

// cursor is the decision of the forwarder, without its effects: what is sent
// next, and under which condition the hub may store it.
//
// The hub stores a batch only while its newest message of this device is the
// one at sequence last. So of two batches that were sent under the same
// condition, one is stored at most: a batch that was thought lost and comes
// late is refused. Whether a batch was stored, and where to go on when anything
// went wrong, is the same question to the hub.
type cursor struct {
	epoch   string // of the outbox
	settled uint64 // up to here the hub holds everything, or was told that it is dropped
	last    uint64 // sequence in the hub's stream of its newest message of this device
	sure    bool   // last is what the hub said, and nothing was sent since
}

// entry is one waiting message, as far as the decision needs it.
type entry struct {
	seq  uint64
	size int    // bytes
	drop string // the reason why it is not sent; empty: it is sent
}

// span is one message to the hub: the message with sequence from, or, with a
// reason, that everything from..to is dropped.
type span struct {
	from, to uint64
	reason   string
}

// errBehind says that the hub holds more of this epoch than the outbox ever
// had: the outbox went back in time, and its sequences name other messages.
var errBehind = errors.New("the hub holds more of this outbox than is here")

// resumed takes the hub's answer. newest is the newest sequence of the outbox.
func (c *cursor) resumed(r twin.Resume, newest uint64) error {
	if r.Epoch == c.epoch && r.Seq > newest {
		return errBehind
	}
	if r.Epoch == c.epoch && r.Seq > c.settled {
		c.settled = r.Seq
	}
	c.last, c.sure = r.Last, true
	return nil
}

// next is the batch to send of what waits, in order, at most count messages
// and about size bytes. Sequences that are missing were dropped by the bound.
func (c *cursor) next(window []entry, count, size int) []span {
	var out []span
	at, bytes := c.settled, 0
	for _, e := range window {
		if e.seq <= at {
			continue
		}
		if e.seq > at+1 {
			if len(out) == count {
				break
			}
			out = append(out, span{at + 1, e.seq - 1, twin.DroppedBound})
		}
		if n := len(out); e.drop != "" && n > 0 && out[n-1].reason == e.drop {
			out[n-1].to, at = e.seq, e.seq
			continue
		}
		if len(out) == count || bytes > 0 && bytes+e.size > size {
			break
		}
		out, at = append(out, span{e.seq, e.seq, e.drop}), e.seq
		if e.drop == "" {
			bytes += e.size
		}
	}
	return out
}

// doubt is called when a batch is on its way, and stays until the hub has
// answered.
func (c *cursor) doubt() { c.sure = false }
