package output

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Suspect reports whether the shim of a module may have stopped to take what the
// module prints: the disk was full, or nobody kept the log for a while.
func (f *Files) Suspect(module string) bool {
	one := f.file(module)
	one.mu.Lock()
	defer one.mu.Unlock()
	return !one.cleared
}

// Rescue finds out whether the shim of a module, whose first process has this
// pid, has stopped to take what it prints, and takes it from then on, in the
// place of the shim and into the same log. A shim never writes again after a
// write has failed, and its module blocks as soon as the pipe is full. rescued
// is true when that was so and no Rescue knew of it.
func (f *Files) Rescue(module string, pid int) (rescued bool, err error) {
	one := f.file(module)
	one.mu.Lock()
	one.cleared = true // a look that finds the disk full says otherwise
	one.mu.Unlock()
	dead, err := unread(pid, one.path)
	if err != nil {
		return false, fmt.Errorf("look who takes what %s prints: %w", module, err)
	}
	for inode, path := range dead {
		took, err := f.drain(one, inode, path)
		if err != nil {
			return rescued, fmt.Errorf("take what %s prints: %w", module, err)
		}
		rescued = rescued || took
	}
	return rescued, nil
}

// unread lists the pipes that a process prints to and its shim does not empty:
// by inode, with a path to open them by. Where the shim has a log open for only
// one of two, it lists both, because two readers do no harm.
func unread(pid int, log string) (map[uint64]string, error) {
	shim, err := parent(pid)
	if err != nil {
		return nil, err
	}
	logID, err := identity(log)
	if err != nil {
		return nil, err
	}
	pipes := map[uint64]string{}
	for _, fd := range []string{"1", "2"} {
		path := filepath.Join("/proc", strconv.Itoa(pid), "fd", fd)
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
			pipes[info.Sys().(*syscall.Stat_t).Ino] = path
		}
	}
	fds := filepath.Join("/proc", strconv.Itoa(shim), "fd")
	entries, err := os.ReadDir(fds)
	if err != nil {
		return nil, err
	}
	writing := 0
	held := map[uint64]bool{}
	for _, e := range entries {
		id, err := identity(filepath.Join(fds, e.Name()))
		if err != nil {
			continue // closed just now
		}
		if id == logID {
			writing++
		}
		held[id.inode] = true
	}
	for inode := range pipes {
		if !held[inode] { // not a pipe to the shim
			delete(pipes, inode)
		}
	}
	if writing >= len(pipes) {
		return nil, nil
	}
	return pipes, nil
}

// file identity: what stat says.
type fileID struct{ device, inode uint64 }

func identity(path string) (fileID, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileID{}, err
	}
	s := info.Sys().(*syscall.Stat_t)
	return fileID{device: uint64(s.Dev), inode: s.Ino}, nil
}

// parent is the pid of the parent of a process: of a container's, the shim.
func parent(pid int) (int, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "PPid:"); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("process %d has no parent", pid)
}

// drain copies from a pipe to the log until nobody writes to the pipe any more.
func (f *Files) drain(one *file, inode uint64, path string) (took bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.drained[inode] {
		return false, nil
	}
	pipe, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // it ended
	}
	if err != nil {
		return false, err
	}
	log, err := os.OpenFile(one.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return false, errors.Join(err, pipe.Close())
	}
	if f.drained == nil {
		f.drained = map[uint64]bool{}
	}
	f.drained[inode] = true
	go func() {
		// What cannot be written is dropped: the module must go on.
		_, _ = io.Copy(dropper{log}, pipe)
		_ = errors.Join(pipe.Close(), log.Close())
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.drained, inode)
	}()
	return true, nil
}

// dropper writes what can be written, and never fails.
type dropper struct{ w io.Writer }

func (d dropper) Write(b []byte) (int, error) {
	_, _ = d.w.Write(b)
	return len(b), nil
}
