package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/tidemark-edge/tidemark/internal/harness/unified/order"
	"golang.org/x/sys/unix"
)

// maxFiles is systemd's default for the hard limit of open files.
const maxFiles = 524288

// outer is where the outer machine's files are before they become the root.
const outer = "/outer"

// own is what a machine has of its own, in the order in which it is mounted.
var own = []struct{ source, target, kind, data string }{
	{"proc", "/proc", "proc", ""},
	{"sysfs", "/sys", "sysfs", ""},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", ""},
	{"devtmpfs", "/dev", "devtmpfs", "mode=755"},
	{"devpts", "/dev/pts", "devpts", "ptmxmode=666"},
	{"tmpfs", "/dev/shm", "tmpfs", "mode=1777"},
	{"tmpfs", "/run", "tmpfs", "mode=755"},
	{outer + "/dev/vda", order.Disk, "ext4", ""},
}

// mountAll makes the outer machine's files the root, read-only, and mounts on them
// what a machine has of its own.
func mountAll(o order.Order) error {
	if err := os.Mkdir(outer, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(order.Outer, outer, "9p", unix.MS_RDONLY, "trans=virtio,version=9p2000.L,cache=loose,msize=512000"); err != nil {
		return fmt.Errorf("mount the outer machine's files: %w", err)
	}
	if err := keep(o.Keep); err != nil {
		return err
	}
	for _, m := range own {
		target := filepath.Join(outer, m.target)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, target, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
		}
	}
	if err := show(o.Keep); err != nil {
		return err
	}
	if err := enter(); err != nil {
		return err
	}
	for below, above := range o.Overlay {
		if err := overlay(below, above); err != nil {
			return err
		}
	}
	return os.Chmod(order.Disk, 0o1777)
}

// kept is where a folder is while others are mounted above it.
func kept(i int) string { return fmt.Sprintf("/kept%d", i) }

// keep holds on to folders before something is mounted above them.
func keep(folders []string) error {
	for i, folder := range folders {
		if err := os.Mkdir(kept(i), 0o755); err != nil {
			return err
		}
		if err := unix.Mount(filepath.Join(outer, folder), kept(i), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("keep %s: %w", folder, err)
		}
	}
	return nil
}

// show brings what was kept back to where it was.
func show(folders []string) error {
	for i, folder := range folders {
		target := filepath.Join(outer, folder)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(kept(i), target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("show %s: %w", folder, err)
		}
	}
	return nil
}

// enter makes the outer machine's files the root of everything. Containers could
// not turn their back on the initial file system.
func enter() error {
	if err := os.Chdir(outer); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("make the outer machine's files the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// overlay makes the folder below writable; what is written goes to the folder
// above.
func overlay(below, above string) error {
	upper, work := filepath.Join(above, "upper"), filepath.Join(above, "work")
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", below, upper, work)
	if err := unix.Mount("overlay", below, "overlay", 0, data); err != nil {
		return fmt.Errorf("mount an overlay on %s: %w", below, err)
	}
	return nil
}

// settle gives the machine a name, a loopback that is up, and the bounds that
// services have.
func settle() error {
	limit := unix.Rlimit{Cur: maxFiles, Max: maxFiles}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("bound open files: %w", err)
	}
	if err := unix.Sethostname([]byte("unified")); err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring the loopback up: %w", err)
	}
	return nil
}
