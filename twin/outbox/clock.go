package outbox

import (
	"time"

	"github.com/tidemark-edge/tidemark/internal/boot"
)

// clock measures ages without the wall clock: a device without a battery boots
// in 1970 and jumps later, and must not lose its queue by that.
type clock struct {
	boot string               // names this boot of the machine
	up   func() time.Duration // since boot, suspend included
}

// systemClock reads the kernel's.
func systemClock() (clock, error) {
	id, err := boot.ID()
	if err != nil {
		return clock{}, err
	}
	return clock{boot: id, up: boot.Uptime}, nil
}

// stamp is a moment: a boot, and how long that boot had lasted.
type stamp struct {
	boot string
	up   time.Duration
}

func (c clock) stamp() stamp { return stamp{c.boot, c.up()} }

// age is how long ago s was, at least. Within one boot it is exact. What was
// stamped in an earlier boot is as old as this boot: how long the machine was
// off, nobody knows, and a message is rather kept too long than lost.
func (c clock) age(s stamp) time.Duration {
	if s.boot == c.boot {
		return c.up() - s.up
	}
	return c.up()
}
