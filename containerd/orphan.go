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
	"time"

	"golang.org/x/sys/unix"
)

// runcState is where runc shims have runc keep its state, by namespace and id.
const runcState = "/run/containerd/runc"

// bury ends what still runs of a container whose task is gone, so that a module
// never runs twice. When a shim dies, containerd has runc end the container's
// processes; when that fails, or takes longer than 5 s, it forgets the task all
// the same. What runc remembers of the container goes, too, or it would refuse
// to make it again. Where nothing was left behind this costs a look at a few
// directories.
func (r *Runtime) bury(ctx context.Context, id string) error {
	state := filepath.Join(runcState, r.config.Namespace, id)
	groups := cgroups(r.config.Namespace, id)
	if _, err := os.Stat(state); len(groups) == 0 && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// A task is ended by its shim, which knows best.
	if err := r.endTask(ctx, id, syscall.SIGKILL, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	for {
		left, err := endMembers(groups)
		if err != nil {
			return fmt.Errorf("end what its shim has left behind: %w", err)
		}
		if left == 0 {
			break
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return fmt.Errorf("end what its shim has left behind: %d processes do not end", left)
		}
	}
	for _, dir := range groups {
		_ = os.Remove(dir) // an empty group is in nobody's way
	}
	if strings.HasPrefix(r.config.Runtime, "io.containerd.runc.") {
		if err := os.RemoveAll(state); err != nil {
			return fmt.Errorf("clean up after its shim: %w", err)
		}
	}
	return nil
}

// cgroups are the directories of a container's control group, one for each
// hierarchy; none when it has none.
func cgroups(namespace, id string) []string {
	if unified() {
		dir := filepath.Join(cgroupRoot, cgroupPath(namespace, id))
		if _, err := os.Stat(dir); err != nil {
			return nil
		}
		return []string{dir}
	}
	hierarchies, _ := os.ReadDir(cgroupRoot) // there is none where there is no directory
	var found []string
	for _, h := range hierarchies {
		dir := filepath.Join(cgroupRoot, h.Name(), cgroupPath(namespace, id))
		if _, err := os.Stat(dir); h.IsDir() && err == nil {
			found = append(found, dir)
		}
	}
	return found
}

// endMembers sends SIGKILL to every process in the groups and returns how many
// it saw. A frozen group is thawed, as version 1 needs it.
func endMembers(groups []string) (seen int, err error) {
	for _, dir := range groups {
		members, err := readMembers(dir)
		if err != nil {
			return seen, err
		}
		for _, pid := range members {
			seen++
			if err := endMember(dir, pid); err != nil {
				return seen, err
			}
		}
		if len(members) > 0 {
			_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0) // only the freezer has it
		}
	}
	return seen, nil
}

// endMember kills a process if it still is in the group once it is sure who has
// its number.
func endMember(dir string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	members, err := readMembers(dir)
	if err != nil || !slices.Contains(members, pid) {
		return err
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// readMembers lists the processes of a group. A module cannot make groups below
// its own: it sees them read-only.
func readMembers(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) { // the group is gone
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, field := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 { // 0 is in another process namespace than ours
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
