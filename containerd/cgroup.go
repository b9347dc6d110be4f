package containerd

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where Linux has its control groups, version 1 or 2.
const cgroupRoot = "/sys/fs/cgroup"

// unified reports whether this machine has only cgroup version 2.
func unified() bool {
	var fs unix.Statfs_t
	return unix.Statfs(cgroupRoot, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// swapAccounted reports whether a memory limit can cover swap. Version 2 shows
// the file in every group but the root one.
func swapAccounted() bool {
	pattern := filepath.Join(cgroupRoot, "memory", "memory.memsw.limit_in_bytes")
	if unified() {
		pattern = filepath.Join(cgroupRoot, "*", "memory.swap.max")
	}
	found, _ := filepath.Glob(pattern) // the pattern is well-formed
	return len(found) > 0
}

// oomKilled reports whether the kernel ended a process of the container for
// its memory limit during its last run. The group, and the count in it, lives
// until the task is deleted, so this also knows what happened while no agent
// was running, which the TaskOOM event does not.
func oomKilled(namespace, id string) bool {
	file := filepath.Join(cgroupRoot, "memory", cgroupPath(namespace, id), "memory.oom_control")
	if unified() {
		file = filepath.Join(cgroupRoot, cgroupPath(namespace, id), "memory.events")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == "oom_kill" {
			n, err := strconv.ParseUint(value, 10, 64)
			return err == nil && n > 0
		}
	}
	return false
}

// maxFiles is systemd's default for the hard limit of open files.
const maxFiles = 524288

// fileLimit is the hard limit of open files for modules: maxFiles, or what
// this machine grants where that is less.
func fileLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 4096 // the kernel's own default
	}
	return min(uint64(limit.Max), maxFiles)
}
