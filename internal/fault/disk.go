package fault

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// Filesystems are those that a Disk may have.
var Filesystems = []string{"ext4", "xfs"}

// Disk is a filesystem on a loop device.
//
// A power cut loses what the filesystem had not given to the device: dirty pages
// and the part of the journal that nobody synced. What the device was given stays,
// flushed or not: a disk that lies about its flushes is not simulated.
type Disk struct {
	FS   string // one of Filesystems
	Dir  string // where it is mounted
	Fsck string // what the check printed in the last Remount

	t      testing.TB
	image  string // file behind the loop device
	device string // /dev/loopN
}

// mountOptions of each filesystem. ext4 by default makes up for a program that
// renames a file which it has not synced; here such a program is to be found.
var mountOptions = map[string]string{"ext4": "noauto_da_alloc", "xfs": ""}

// NewDisk makes a filesystem and mounts it; XFS wants 300 MB at least. The space
// is not taken from the machine before it is written to. When the test ends, so
// does the disk: whatever runs on it has to be gone by then.
func NewDisk(t testing.TB, filesystem string, sizeMB int64) *Disk {
	t.Helper()
	if !slices.Contains(Filesystems, filesystem) {
		t.Fatalf("no filesystem %q: want one of %q", filesystem, Filesystems)
	}
	dir := t.TempDir()
	d := &Disk{FS: filesystem, Dir: filepath.Join(dir, "disk"), t: t, image: filepath.Join(dir, "image")}
	err := errors.Join(os.Mkdir(d.Dir, 0o755), os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, sizeMB<<20))
	if err != nil {
		t.Fatal(err)
	}
	// No blocks reserved for root: as root the agent would not meet a full disk.
	mkfs := map[string][]string{"ext4": {"mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096"}, "xfs": {"mkfs.xfs", "-q", "-f"}}
	run(t, append(mkfs[filesystem], d.image)...)
	d.device = strings.TrimSpace(run(t, "losetup", "--find", "--show", d.image))
	held, err := os.Open(d.device)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "losetup", "--detach", d.device) // once nobody has it open: also when this test is killed
	t.Cleanup(func() {
		if err := errors.Join(d.unmount(), held.Close()); err != nil {
			t.Errorf("disk: %v", err)
		}
	})
	d.mount()
	return d
}

func (d *Disk) mount() {
	d.t.Helper()
	if err := syscall.Mount(d.device, d.Dir, d.FS, 0, mountOptions[d.FS]); err != nil {
		d.t.Fatalf("mount %s on %s: %v", d.device, d.Dir, err)
	}
}

// shutdown is EXT4_IOC_SHUTDOWN, which is XFS_IOC_GOINGDOWN too: _IOR('X', 125, __u32).
const shutdown = 0x8004587d

// PowerCut ends all that the filesystem writes, now: neither dirty pages nor the
// journal in memory reach the device. From here on everything below Dir fails with
// EIO. Whatever runs on the disk is to be killed then, and Remount is the boot.
//
// The processes running, and all that descend from them, stop before, so that none
// of them says anything after the cut: see freeze. What a test does itself on the
// disk while the power goes does not stop: its outcome is to be ignored.
func (d *Disk) PowerCut(running ...int) {
	d.t.Helper()
	freeze(d.t, running...)
	f, err := os.Open(d.Dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	noLogFlush := uint32(2)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&noLogFlush)))
	if errno != 0 {
		d.t.Fatalf("shut %s down: %v", d.Dir, errno)
	}
}

// Remount takes the disk away, with every mount below it or made of it, and mounts
// it again, which replays its journal. All processes that use it must have ended.
// A filesystem that is not consistent after that fails the test.
func (d *Disk) Remount() {
	d.t.Helper()
	if err := d.unmount(); err != nil {
		d.t.Fatalf("remount: %v", err)
	}
	d.mount() // replays the journal, which the check does not
	if err := d.unmount(); err != nil {
		d.t.Fatalf("remount: %v", err)
	}
	check := map[string][]string{"ext4": {"e2fsck", "-f", "-n"}, "xfs": {"xfs_repair", "-n"}}[d.FS]
	out, err := exec.Command(check[0], append(check[1:], d.device)...).CombinedOutput()
	if d.Fsck = string(out); err != nil {
		d.t.Errorf("%s after the journal was replayed: %v\n%s", check[0], err, out)
	}
	d.mount()
}

// run runs a command of the machine and returns what it prints.
func run(t testing.TB, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}
