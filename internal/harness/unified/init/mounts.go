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

// mountAll makes the outer machine's files the root, read-only, and mounts on them
// what a machine has of its own.
func mountAll(overlays map[string]string) error {
	mounts := []struct{ source, target, kind, data string }{
		{order.Outer, "/", "9p", "trans=virtio,version=9p2000.L,cache=loose,msize=512000"},
		{"proc", "/proc", "proc", ""},
		{"sysfs", "/sys", "sysfs", ""},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", ""},
		{"devtmpfs", "/dev", "devtmpfs", "mode=755"},
		{"devpts", "/dev/pts", "devpts", "ptmxmode=666"},
		{"tmpfs", "/dev/shm", "tmpfs", "mode=1777"},
		{"tmpfs", "/run", "tmpfs", "mode=755"},
		{"/dev/vda", order.Disk, "ext4", ""},
	}
	for _, m := range mounts {
		target := filepath.Join(outer, m.target)
		if m.kind == "9p" || m.kind == "devpts" || m.target == "/dev/shm" {
			if err := os.MkdirAll(target, 0o755); err != nil {
				return err
			}
		}
		source, flags := m.source, uintptr(0)
		switch m.kind {
		case "9p":
			flags = unix.MS_RDONLY
		case "ext4":
			source = filepath.Join(outer, source)
		}
		if err := unix.Mount(source, target, m.kind, flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
		}
	}
	if err := enter(); err != nil {
		return err
	}
	for below, above := range overlays {
		if err := overlay(below, above); err != nil {
			return err
		}
	}
	return os.Chmod(order.Disk, 0o1777)
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
