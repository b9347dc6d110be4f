// Package boot tells one boot of this machine from another, and how long the
// present one has lasted: what holds whatever the wall clock says. A device
// without a battery for its clock boots in 1970 and jumps later.
package boot

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ID is the kernel's name of this boot, in no form that matters: it is only ever
// compared. An error says that the kernel does not tell.
func ID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// Uptime is how long this boot has lasted, suspended time included.
func Uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0 // the clock exists since Linux 2.6.39
	}
	return time.Duration(t.Nano())
}
