package fault

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// freeze stops the processes roots and all that descend from them, and returns when
// none of their threads can run another instruction of its program. What they said
// to others by then was said before; from here on they say nothing.
//
// It is the first half of a power cut. Were they only killed after the disk has
// none, they would live on for some milliseconds on a machine that cannot be: an
// fsync that is under way when a filesystem is shut down may return success for what
// is lost, on ext4 and on XFS, and a program that acknowledges something then
// breaks its word without a fault of its own. Killed before, they would close their
// files and end their mounts, which writes to the disk.
//
// A thread that is in an uninterruptible sleep, such as that fsync, stops when it
// leaves the kernel; the signal that waits for it sees to that. What the kernel
// writes until the power goes, it might as well have written before.
func freeze(t testing.TB, roots ...int) {
	t.Helper()
	signalled := map[int]bool{} // threads
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		var moving []string
		for _, pid := range append(slices.Clone(roots), descendants(roots...)...) {
			threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
			for _, dir := range threads {
				thread, _ := strconv.Atoi(filepath.Base(dir))
				state := ""
				if f := stat(dir); len(f) > 0 {
					state = f[0]
				}
				if strings.Contains("tTZX", state) || state == "D" && signalled[thread] {
					continue // stopped, ended, or asleep with the signal waiting
				}
				// To each by itself: one that is meant for the process waits for the
				// thread that the kernel chooses, while others go on.
				unix.Tgkill(pid, thread, unix.SIGSTOP)
				signalled[thread] = true
				moving = append(moving, fmt.Sprintf("%d/%d %s", pid, thread, state))
			}
		}
		if len(moving) == 0 { // then nobody has made a process or a thread since the look before
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("freeze: still moving: %q", moving)
			return
		}
	}
}

// descendants are the processes that descend from these.
func descendants(roots ...int) []int {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if f := stat(filepath.Join("/proc", e.Name())); len(f) > 1 {
			parent, _ := strconv.Atoi(f[1])
			children[parent] = append(children[parent], pid)
		}
	}
	var found []int
	for next := slices.Clone(roots); len(next) > 0; next = next[1:] {
		found = append(found, children[next[0]]...)
		next = append(next, children[next[0]]...)
	}
	return found
}

// stat are the fields of a process or thread that follow its name: state, parent and
// so on; none when it has ended.
func stat(dir string) []string {
	line, _ := os.ReadFile(filepath.Join(dir, "stat"))
	// The name, in parentheses, may hold anything.
	return strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
}
