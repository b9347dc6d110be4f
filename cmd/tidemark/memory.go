package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An agent lives beside the workload of a small device, and for most of its life
// it does next to nothing.
const (
	// gcPercent trades a little processor time for a heap that is at most half
	// as large again as what is in use.
	gcPercent = 50
	// restPeriod is how long the agent must have been at rest.
	restPeriod = 10 * time.Second
	// atRest is the processor time in a period below which it was: a tenth of a
	// core, which a deployment takes on any device and waiting on none.
	atRest = restPeriod / 10
)

// settle gives back, each time the agent comes to rest, what only its work
// needed: free heap, and the pages of the binary, most of which are not used
// again soon. The kernel brings those back that are.
func settle(ctx context.Context) {
	debug.SetGCPercent(gcPercent)
	tick := time.NewTicker(restPeriod)
	defer tick.Stop()
	for worked, before := true, processorTime(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := processorTime()
		resting := now-before < atRest
		if resting && worked {
			debug.FreeOSMemory()
			forgetBinary()
		}
		worked, before = !resting, now
	}
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// forgetBinary unmaps the pages of this program's code and constants. They are
// read-only and backed by the file, so nothing is lost; what fails is left.
func forgetBinary() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasSuffix(lines.Text(), exe) {
			continue
		}
		if mode == "r-xp" || mode == "r--p" {
			unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}
