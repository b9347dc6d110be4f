package fault

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Apart gives this program mounts of its own: it replaces the program by itself,
// started anew. A TestMain begins with it. Whatever on the machine has copied the
// mounts that are there, as "ip netns exec" and every container do, keeps their
// filesystems in use for as long as it runs; what a test mounts from here on no one
// else gets to see, and it goes with the test. In turn, the disks that others have
// mounted are let go of.
func Apart() {
	const mark = "TIDEMARK_FAULT_APART"
	if os.Getenv(mark) != "" {
		return
	}
	if err := apart(mark); err != nil {
		fmt.Fprintln(os.Stderr, "mounts of its own:", err)
		os.Exit(1)
	}
}

func apart(mark string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // whose mounts the new program gets
	err = errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	if err != nil {
		return err
	}
	table, err := os.ReadFile("/proc/thread-self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if strings.HasPrefix(f[0], "/dev/loop") || f[2] == "overlay" && f[1] != "/" {
			unix.Unmount(f[1], unix.MNT_DETACH)
		}
	}
	return unix.Exec(self, os.Args, append(os.Environ(), mark+"=1"))
}
