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
	// settleTime is how long starting takes, with a deployment.
	settleTime = 10 * time.Second
)

// settle gives back, once the agent has started, what only starting needed: free
// heap, and the pages of the binary, most of which are never used again. The
// kernel brings those back that are.
func settle(ctx context.Context) {
	debug.SetGCPercent(gcPercent)
	select {
	case <-ctx.Done():
		return
	case <-time.After(settleTime):
	}
	debug.FreeOSMemory()
	forgetBinary()
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
