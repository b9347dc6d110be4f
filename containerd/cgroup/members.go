package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dirs are the directories of a group, one for each hierarchy; none when there is
// no such group.
func Dirs(group string) []string {
	if unified() {
		dir := filepath.Join(top, group)
		if _, err := os.Stat(dir); err != nil {
			return nil
		}
		return []string{dir}
	}
	hierarchies, _ := os.ReadDir(top) // there is none where there is no directory
	var found []string
	for _, h := range hierarchies {
		dir := filepath.Join(top, h.Name(), group)
		if _, err := os.Stat(dir); h.IsDir() && err == nil {
			found = append(found, dir)
		}
	}
	return found
}

// EndMembers sends SIGKILL to every process in the groups with these directories
// and returns how many it saw: call it until that is none. A frozen group is thawed, as version 1 needs it.
func EndMembers(dirs []string) (seen int, err error) {
	for _, dir := range dirs {
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
