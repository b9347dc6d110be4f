package uplink

import (
	"time"

	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

// pace is how much may be under way. It grows while answers come quickly, so that
// the time of the link and of the hub's disk costs no throughput; and shrinks where
// they are slow, so that what is urgent does not wait behind what was sent.
type pace struct {
	window   int           // bytes that may be under way
	flying   int           // bytes that are
	flights  int           // batches that are
	rtt      time.Duration // of the last answers; 0 before the first
	timeouts int           // in a row
	shrunk   time.Time     // when window last became smaller
}

const (
	firstWindow = 256 << 10
	minWindow   = 16 << 10
	maxWindow   = 8 << 20 // the hub takes 12 MiB of a device
	maxFlights  = 12      // the hub takes 16 batches of a device
	sideFlights = 8
	minBatch    = 4 << 10
	slow        = time.Second // an answer that takes longer is slow
	minTimeout  = 5 * time.Second
	maxTimeout  = 2 * time.Minute
)

// batch is how large a batch should be at most, in bytes of items.
func (p *pace) batch() int { return min(max(p.window/4, minBatch), queue.MaxRecord) }

// room says whether one more may be sent by a side that has mine under way. Each
// side may have one, however much of others there is.
func (p *pace) room(mine int) bool {
	return p.flights < maxFlights && (mine == 0 || mine < sideFlights && p.flying < p.window)
}

func (p *pace) timeout() time.Duration {
	return min(max(minTimeout, 4*p.rtt)<<min(p.timeouts, 8), maxTimeout)
}

func (p *pace) sent(size int) {
	p.flights++
	p.flying += size
}

// ended says that what was sent is no longer waited for.
func (p *pace) ended(size int) {
	p.flights--
	p.flying -= size
}

// answered takes how long an answer took.
func (p *pace) answered(size int, took time.Duration, now time.Time) {
	p.timeouts = 0
	if p.rtt == 0 {
		p.rtt = took
	}
	p.rtt = (7*p.rtt + took) / 8
	switch {
	case took <= slow:
		if p.flying+size >= p.window/2 { // otherwise it was not the window that it was sent by
			p.window = min(p.window+size, maxWindow)
		}
	case now.Sub(p.shrunk) > took:
		p.window = max(p.window*3/4, minWindow)
		p.shrunk = now
	}
}

// timedOut says that an answer did not come.
func (p *pace) timedOut(now time.Time) {
	p.timeouts++
	p.window = max(p.window/2, minWindow)
	p.shrunk = now
}
