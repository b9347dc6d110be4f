package queue

import (
	"time"

	"github.com/tidemark-edge/tidemark/internal/boot"
)

// Clock measures ages without the wall clock: a device without a battery boots
// in 1970 and jumps later, and must not lose its queue by that.
type Clock struct {
	Boot string               // names this boot of the machine
	Up   func() time.Duration // since boot, suspend included
}

// SystemClock reads the kernel's.
func SystemClock() (Clock, error) {
	id, err := boot.ID()
	if err != nil {
		return Clock{}, err
	}
	return Clock{Boot: id, Up: boot.Uptime}, nil
}

// Stamp is a moment: a boot, and how long that boot had lasted.
type Stamp struct {
	Boot string        // which boot
	Up   time.Duration // since it began, suspend included
}

// Stamp is now.
func (c Clock) Stamp() Stamp { return Stamp{c.Boot, c.Up()} }

// Age is how long ago s was, at least. Within one boot it is exact. What was
// stamped in an earlier boot is as old as this boot: how long the machine was
// off, nobody knows, and a message is rather kept too long than lost.
func (c Clock) Age(s Stamp) time.Duration {
	if s.Boot == c.Boot {
		return c.Up() - s.Up
	}
	return c.Up()
}
