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

// SwapAccounted reports whether a memory limit of the namespace's containers can
// cover swap. Version 2 shows that in groups only to whose parent the memory
// controller was given, and before a machine's first container there may be none:
// so this makes the namespace's group and gives it the controller, as runc does.
func SwapAccounted(namespace string) bool {
	file := filepath.Join(top, "memory", "memory.memsw.limit_in_bytes")
	if unified() {
		group := filepath.Join(top, namespace)
		file = filepath.Join(group, "memory.swap.max")
		// What goes wrong shows in the file, and again when runc does the same.
		_ = os.Mkdir(group, 0o755)
		_ = os.WriteFile(filepath.Join(top, "cgroup.subtree_control"), []byte("+memory"), 0)
	}
	_, err := os.Stat(file)
	return err == nil
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
