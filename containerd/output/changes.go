package output

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// changes are told by the kernel (inotify), for the files of one directory.
type changes struct {
	*os.File
	dir    string
	inode  os.FileInfo    // of dir
	buffer [64 << 10]byte // a thousand changes or more; what is more waits
}

// listen begins to be told of changes in dir.
func listen(dir string) (*changes, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w (is /proc/sys/fs/inotify/max_user_instances too small?)", dir, err)
	}
	c := &changes{File: os.NewFile(uintptr(fd), "inotify"), dir: dir}
	const what = unix.IN_MODIFY | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	_, err = unix.InotifyAddWatch(fd, dir, what)
	if err == nil {
		c.inode, err = os.Stat(dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", dir, err), c.Close())
	}
	return c, nil
}

// next waits for changes and returns the names of the files. all is true when
// there were more than the kernel keeps, or files went. An error ends the watch.
func (c *changes) next() (names map[string]bool, all bool, err error) {
	n, err := c.Read(c.buffer[:])
	if err != nil {
		return nil, false, err
	}
	names = map[string]bool{}
	for rest := c.buffer[:n]; len(rest) >= unix.SizeofInotifyEvent; {
		mask := binary.NativeEndian.Uint32(rest[4:])
		length := int(binary.NativeEndian.Uint32(rest[12:]))
		if length > len(rest)-unix.SizeofInotifyEvent {
			return names, true, nil
		}
		name := rest[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+length]
		rest = rest[unix.SizeofInotifyEvent+length:]
		switch {
		case mask&(unix.IN_Q_OVERFLOW|unix.IN_DELETE|unix.IN_MOVED_FROM) != 0:
			all = true
		case mask&(unix.IN_MOVE_SELF|unix.IN_IGNORED|unix.IN_UNMOUNT) != 0:
			return nil, false, c.lost()
		default:
			names[strings.TrimRight(string(name), "\x00")] = true
		}
	}
	return names, all, nil
}

// there is an error when the directory is no longer the one that is watched. The
// kernel does not tell of its end while a shim has a file in it open.
func (c *changes) there() error {
	if now, err := os.Stat(c.dir); err != nil || !os.SameFile(now, c.inode) {
		return c.lost()
	}
	return nil
}

func (c *changes) lost() error { return fmt.Errorf("%s was removed or moved", c.dir) }
