package outbox

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clock measures ages without the wall clock: a device without a battery boots
// in 1970 and jumps later, and must not lose its queue by that.
type clock struct {
	boot string               // names this boot of the machine
	up   func() time.Duration // since boot, suspend included
}

// systemClock reads the kernel's.
func systemClock() (clock, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return clock{}, fmt.Errorf("name this boot: %w", err)
	}
	return clock{boot: strings.TrimSpace(string(id)), up: sinceBoot}, nil
}

func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0 // the clock exists since Linux 2.6.39; 0 expires nothing
	}
	return time.Duration(t.Nano())
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
