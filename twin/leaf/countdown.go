package leaf

import (
	"time"

	"github.com/tidemark-edge/tidemark/internal/boot"
)

const (
	// chargeAhead is how much of an override's time is charged in advance when what
	// is left is written down. A boot of the machine ends an override earlier by that
	// at most, and never later.
	chargeAhead = 2 * time.Minute
	// chargeEvery is how often it is looked at, so that there is always some left of
	// what was charged.
	chargeEvery = time.Minute
)

// countdown is what is left of an override, measured by time that passes rather
// than by the wall clock. While the machine is off no time passes.
type countdown struct {
	Boot string        `json:"boot"` // the boot in which Due holds
	Due  time.Duration `json:"due"`  // uptime of that boot at which it ends
	Left time.Duration `json:"left"` // what another boot has to wait, from its beginning
}

// clock tells how long which boot has lasted.
type clock struct {
	boot   string // empty where the kernel does not tell: each start of the agent counts as a boot then
	uptime func() time.Duration
}

func kernelClock() clock {
	id, _ := boot.ID()
	return clock{boot: id, uptime: boot.Uptime}
}

// start is a countdown that ends after lasts; none for 0.
func (c clock) start(lasts time.Duration) countdown {
	if lasts == 0 {
		return countdown{}
	}
	return c.charged(countdown{Boot: c.boot, Due: c.uptime() + lasts})
}

// left is what remains of a countdown, not above zero when it has ended. ends is
// false for one that has no end.
func (c clock) left(d countdown) (left time.Duration, ends bool) {
	if d == (countdown{}) {
		return 0, false
	}
	return c.here(d).Due - c.uptime(), true
}

// here is a countdown in terms of this boot.
func (c clock) here(d countdown) countdown {
	if d.Boot == c.boot && c.boot != "" {
		return d
	}
	return countdown{Boot: c.boot, Due: d.Left, Left: d.Left}
}

// charged is a countdown with what is to be written of it now.
func (c clock) charged(d countdown) countdown {
	d = c.here(d)
	d.Left = max(d.Due-c.uptime()-chargeAhead, 0)
	return d
}

// stale reports whether what is charged is nearly used up.
func (c clock) stale(d countdown) bool {
	return d != countdown{} && (d.Boot != c.boot || d.Due-c.uptime() <= d.Left+chargeEvery)
}
