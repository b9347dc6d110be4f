package ledger

import (
	"time"

	"github.com/tidemark-edge/tidemark/internal/boot"
)

const (
	// chargeAhead is how much of an override's time is charged in advance when what
	// is left is written down. A boot of the machine ends an override earlier by that
	// at most, and never later.
	chargeAhead = 2 * time.Minute
	// ChargeEvery is how often Charge has to be called, so that there is always some
	// left of what was charged.
	ChargeEvery = time.Minute
)

// Countdown is what is left of an override, measured by time that passes rather
// than by the wall clock. While the machine is off no time passes.
type Countdown struct {
	Boot string        `json:"boot"` // the boot in which Due holds
	Due  time.Duration `json:"due"`  // uptime of that boot at which it ends
	Left time.Duration `json:"left"` // what another boot has to wait, from its beginning
}

// Clock tells how long which boot has lasted.
type Clock struct {
	Boot   string // empty where the kernel does not tell: each start of the agent counts as a boot then
	Uptime func() time.Duration
}

// KernelClock is the clock of this machine.
func KernelClock() Clock {
	id, _ := boot.ID()
	return Clock{Boot: id, Uptime: boot.Uptime}
}

// Start is a countdown that ends after lasts; none for 0.
func (c Clock) Start(lasts time.Duration) Countdown {
	if lasts == 0 {
		return Countdown{}
	}
	return c.charged(Countdown{Boot: c.Boot, Due: c.Uptime() + lasts})
}

// Left is what remains of a countdown, not above zero when it has ended. ends is
// false for one that has no end.
func (c Clock) Left(d Countdown) (left time.Duration, ends bool) {
	if d == (Countdown{}) {
		return 0, false
	}
	return c.here(d).Due - c.Uptime(), true
}

// here is a countdown in terms of this boot.
func (c Clock) here(d Countdown) Countdown {
	if d.Boot == c.Boot && c.Boot != "" {
		return d
	}
	return Countdown{Boot: c.Boot, Due: d.Left, Left: d.Left}
}

// charged is a countdown with what is to be written of it now.
func (c Clock) charged(d Countdown) Countdown {
	d = c.here(d)
	d.Left = max(d.Due-c.Uptime()-chargeAhead, 0)
	return d
}

// stale reports whether what is charged is nearly used up.
func (c Clock) stale(d Countdown) bool {
	return d != Countdown{} && (d.Boot != c.Boot || d.Due-c.Uptime() <= d.Left+ChargeEvery)
}
