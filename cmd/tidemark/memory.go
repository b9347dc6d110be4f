package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
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
	// memoryBound is what the Go runtime may take from the system without being
	// urged to give back, in bytes: a backlog on its way to the hub, in blocks of
	// 8 MiB, would otherwise make it twice as large as it needs to be. An agent with
	// more in use than this has no use for the bound; see bound.
	memoryBound = 72 << 20
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
	bound()
	tick := time.NewTicker(restPeriod)
	defer tick.Stop()
	for worked, before := true, processorTime(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		bound()
		now := processorTime()
		resting := now-before < atRest
		if resting && worked {
			debug.FreeOSMemory()
			forgetBinary()
		}
		worked, before = !resting, now
	}
}

// bound has the runtime collect more eagerly towards memoryBound, or towards
// what gcPercent allows where that is more: a bound below what is in use would
// have it collect without end.
func bound() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	debug.SetMemoryLimit(max(memoryBound, int64(live[0].Value.Uint64())*(100+gcPercent)/100))
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
