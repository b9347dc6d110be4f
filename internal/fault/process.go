package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is one of the device's machine.
type process struct {
	pid     int    // on the real machine
	command string // arguments, separated by spaces
	cgroup  string // one of its cgroups
}

func isShim(p process) bool { return strings.Contains(p.command, "containerd-shim") }

func isModule(p process) bool { return strings.HasPrefix(p.command, "/main") }

// processes are those that descend from the machine's first and match. What has
// ended and is not reaped is left out.
func (d *Device) processes(match func(process) bool) []process {
	var found []process
	for _, pid := range descendants(d.Machine.PID) {
		if p, ok := d.process(pid); ok && match(p) {
			found = append(found, p)
		}
	}
	return found
}

// process looks at one; it may have ended.
func (d *Device) process(pid int) (process, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	command, _ := os.ReadFile(dir + "/cmdline")
	p := process{pid: pid, command: strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " "))}
	groups, _ := os.ReadFile(dir + "/cgroup")
	for line := range strings.Lines(string(groups)) {
		if path := line[strings.LastIndexByte(line, ':')+1:]; strings.Contains(path, d.namespace) {
			p.cgroup = strings.TrimSpace(path)
		}
	}
	return p, len(command) > 0
}

// cgroups are the directories of the device's cgroups, deepest first.
func (d *Device) cgroups() []string {
	var dirs []string
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/" + d.namespace)
	own, _ := filepath.Glob("/sys/fs/cgroup/" + d.namespace)
	for _, top := range append(tops, own...) {
		filepath.WalkDir(top, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append([]string{path}, dirs...)
			}
			return nil
		})
	}
	return dirs
}

// removeCgroups takes the device's cgroups away, as a reboot does.
func (d *Device) removeCgroups() {
	d.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		dirs := d.cgroups()
		var last error
		for _, dir := range dirs {
			if err := syscall.Rmdir(dir); err != nil && err != syscall.ENOENT {
				last = fmt.Errorf("%s: %w", dir, err)
			}
		}
		if last == nil {
			return
		}
		if time.Now().After(deadline) {
			d.t.Errorf("remove cgroups: %v", last)
			return
		}
	}
}
