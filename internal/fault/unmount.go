package fault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// unmount takes the disk's mounts away, newest first, and waits until the kernel
// has let go of the filesystem: mounted before, it would be the old one that was
// met again, shut down as it is.
func (d *Disk) unmount() error {
	for _, m := range slices.Backward(d.mounts()) {
		if err := syscall.Unmount(m, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("unmount %s: %w", m, err)
		}
	}
	alive := filepath.Join("/sys/fs", d.FS, filepath.Base(d.device))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(alive); err != nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s on %s is still in use: by the processes %v, and the mounts %q", d.device, d.Dir, d.users(), d.mounts())
		}
	}
}

// mounts are the mount points below the disk, the disk's own, and those of
// overlays made of its directories, which would keep it alive.
func (d *Disk) mounts() []string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		d.t.Fatal(err)
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 10 {
			continue
		}
		point, options := unescape(fields[4]), fields[len(fields)-1]
		if point == d.Dir || strings.HasPrefix(point, d.Dir+"/") || strings.Contains(options, "="+d.Dir+"/") || strings.Contains(options, ":"+d.Dir+"/") || fields[len(fields)-2] == d.device {
			points = append(points, point)
		}
	}
	return points
}

// unescape undoes the kernel's writing of spaces in a path.
func unescape(path string) string { return strings.ReplaceAll(path, `\040`, " ") }

// users are the processes with a file, directory, root or mount of the disk.
func (d *Disk) users() []string {
	var found []string
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		uses := false
		links, _ := filepath.Glob(p + "/fd/*")
		for _, link := range append(links, p+"/cwd", p+"/exe") {
			target, err := os.Readlink(link)
			uses = uses || err == nil && strings.HasPrefix(target, d.Dir)
		}
		table, _ := os.ReadFile(p + "/mountinfo")
		if uses || filepath.Base(p) != fmt.Sprint(os.Getpid()) && (strings.Contains(string(table), d.device+" ") || strings.Contains(string(table), d.Dir+"/")) {
			name, _ := os.ReadFile(p + "/comm")
			found = append(found, filepath.Base(p)+" "+strings.TrimSpace(string(name)))
		}
	}
	return found
}
