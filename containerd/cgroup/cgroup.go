// Package cgroup looks at the control groups of containers, of version 1 and 2,
// where the daemon cannot be asked: its events are lost while nobody listens, and
// a shim that dies leaves its container's processes behind.
package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// top is where Linux has its control groups, version 1 or 2.
const top = "/sys/fs/cgroup"

// Path is the group of a container, absolute: below the top of each hierarchy.
func Path(namespace, id string) string { return "/" + namespace + "/" + id }

// unified reports whether this machine has only cgroup version 2.
func unified() bool {
	var fs unix.Statfs_t
	return unix.Statfs(top, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// SwapAccounted reports whether a memory limit can cover swap. Version 2 shows
// the file in every group but the root one.
func SwapAccounted() bool {
	pattern := filepath.Join(top, "memory", "memory.memsw.limit_in_bytes")
	if unified() {
		pattern = filepath.Join(top, "*", "memory.swap.max")
	}
	found, _ := filepath.Glob(pattern) // the pattern is well-formed
	return len(found) > 0
}

// OOMKilled reports whether the kernel ended a process of the container with
// this group for its memory limit during its last run. The group, and the count
// in it, lives until the task is deleted, so this also knows what happened while
// no agent was running, which the TaskOOM event does not.
func OOMKilled(group string) bool {
	file := filepath.Join(top, "memory", group, "memory.oom_control")
	if unified() {
		file = filepath.Join(top, group, "memory.events")
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
