package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// Debris is what containerd itself never gets rid of after it was killed at a
// bad moment, until the machine is started again:
//
//   - A bundle is deleted by renaming it to a hidden name first. Killed after
//     that, containerd can delete no further bundle of the same container, for
//     that name is taken, and so cannot make another task for it.
//   - A shim that was just being started is found by the next one for the same
//     container, which then waits for it.

// bundleIn is the bundle that stood in the way of a new task, as an error of
// containerd's names it; empty when that is not what went wrong. There is no
// other way to learn where containerd keeps its bundles.
func bundleIn(err error, namespace, id string) string {
	_, rest, _ := strings.Cut(err.Error(), "mkdir ")
	dir, _, found := strings.Cut(rest, ": "+syscall.EEXIST.Error())
	if !found || filepath.Clean(dir) != dir || !strings.HasSuffix(dir, "/io.containerd.runtime.v2.task/"+namespace+"/"+id) || dir[0] != '/' {
		return ""
	}
	return dir
}

// sweepAway removes debris of a container that has no task: a shim, and the
// bundle, where one is known.
func (r *Runtime) sweepAway(ctx context.Context, id, bundle string) error {
	if err := endShims(r.config.Namespace, id); err != nil {
		return fmt.Errorf("end its former shim: %w", err)
	}
	if err := r.bury(ctx, id); err != nil || bundle == "" {
		return err
	}
	for _, dir := range []string{bundle, filepath.Join(filepath.Dir(bundle), "."+filepath.Base(bundle))} {
		if err := removeBundle(dir); err != nil {
			return fmt.Errorf("remove its former bundle: %w", err)
		}
	}
	return nil
}

// removeBundle removes a directory, but nothing that is mounted in it.
func removeBundle(dir string) error {
	if err := mount.UnmountRecursive(filepath.Join(dir, "rootfs"), unix.MNT_DETACH); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if strings.Contains(string(mounts), " "+dir+"/") {
		return fmt.Errorf("%s: something is mounted there", dir)
	}
	return os.RemoveAll(dir)
}

// endShims kills the shims of a container, found by how they are called.
func endShims(namespace, id string) error {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || !isShim(pid, namespace, id) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended
		}
		if isShim(pid, namespace, id) { // still, now that it is sure who has the number
			err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// isShim reports whether a process is a shim of the container.
func isShim(pid int, namespace, id string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	args := strings.Split(string(b), "\x00")
	return strings.HasPrefix(filepath.Base(args[0]), "containerd-shim-") &&
		follows(args, "-namespace", namespace) && follows(args, "-id", id)
}

// follows reports whether a flag has the value.
func follows(args []string, flag, value string) bool {
	i := slices.Index(args, flag)
	return i >= 0 && i+1 < len(args) && args[i+1] == value
}
