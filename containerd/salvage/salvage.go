// Package salvage looks after a containerd that does not come up because what it
// keeps is damaged, as a power cut leaves it now and then.
package salvage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/containerd/database"
)

const (
	metadataDir = "io.containerd.metadata.v1.bolt"
	ownPrefix   = "tidemark."          // of what is ours in containerd's root
	brokenDir   = "tidemark.broken-%d" // what was set aside
	maxBroken   = 2                    // of them are kept, the databases only

	guardEach     = 10 * time.Second
	guardPatience = 30 * time.Second
)

// Daemon is a containerd on this device.
type Daemon struct {
	Client    *client.Client // asks whether it serves
	Address   string         // absolute path of its socket
	Root      string         // directory of all that it keeps, if the device's owner said that this is the agent's own; otherwise empty
	UsualRoot string         // the same where nobody said anything; empty when that is not known
}

// Guard salvages, until ctx ends, a containerd that does not come up. warn is told
// what was found and done, each thing once.
func (d Daemon) Guard(ctx context.Context, warn func(error)) {
	var down time.Time
	var said string
	for {
		select {
		case <-time.After(guardEach):
		case <-ctx.Done():
			return
		}
		if d.serves(ctx) == nil {
			down, said = time.Time{}, ""
			continue
		}
		if down.IsZero() {
			down = time.Now()
		}
		if time.Since(down) < guardPatience {
			continue
		}
		if err := d.Salvage(ctx); err != nil && err.Error() != said {
			warn(err)
			said = err.Error()
		}
	}
}

// serves asks containerd something that it needs its database for.
func (d Daemon) serves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, guardEach)
	defer cancel()
	_, err := d.Client.NamespaceService().List(ctx)
	return err
}

// Salvage looks at the databases of a containerd that does not serve, and sets a
// damaged one aside with all that containerd keeps, so that it comes up empty and
// images can be pulled again. Nothing else helps then: without its database
// containerd does not know one file from another.
//
// It does so only where the device's owner has said that containerd is the
// agent's own (containerd.root), never with a database that a daemon has open, and
// not while modules still run: those run on without containerd, and after a reboot
// there are none. nil means that nothing is wrong or to be done; otherwise the
// error says what is, or was done.
func (d Daemon) Salvage(ctx context.Context) error {
	unserved := d.serves(ctx)
	if unserved == nil || ctx.Err() != nil {
		return nil
	}
	root := cmp.Or(d.Root, d.UsualRoot)
	if root == "" {
		return nil
	}
	held, damage := examine(root)
	defer held.release()
	switch {
	case held.inUse:
		return nil // a daemon that is slow
	case d.Root == "" && damage != nil:
		return fmt.Errorf("containerd does not serve: %w: stop it, move %s away and start it, or name it as containerd.root if it is this agent's own", damage, root)
	case d.Root == "":
		return nil
	case damage == nil && errdefs.IsNotImplemented(unserved):
		return errors.Join(errors.New("containerd runs without its database, which is whole: end it, so that it is started anew"), d.end())
	case damage == nil:
		return nil
	case d.hasShims():
		return fmt.Errorf("containerd does not serve: %w: it is set aside when the modules that still run have ended, or the device is restarted", damage)
	}
	aside, err := setAside(root)
	if err != nil {
		return fmt.Errorf("containerd does not serve: %w: set it aside: %w", damage, err)
	}
	return errors.Join(fmt.Errorf("containerd did not serve: %w: set aside in %s with all images, which are pulled again", damage, aside), d.end())
}

// locks are open databases, with the lock that a daemon takes of them.
type locks struct {
	files []*os.File
	inUse bool // the database of images and containers is open in a daemon
}

func (l *locks) release() {
	for _, f := range l.files {
		f.Close()
	}
}

// examine looks at every database below root that no daemon has open.
func examine(root string) (*locks, error) {
	held := &locks{}
	paths, _ := filepath.Glob(filepath.Join(root, "io.containerd.*", "*.db"))
	var damage error
	for _, path := range paths {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		held.files = append(held.files, f)
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			held.inUse = held.inUse || filepath.Base(filepath.Dir(path)) == metadataDir
			continue
		}
		var broken *database.DamagedError
		if err := database.Check(path); damage == nil && errors.As(err, &broken) {
			damage = err
		}
	}
	return held, damage
}

// setAside moves all that containerd keeps into a directory beside, and keeps the
// databases of it. The one that says what is wrong goes last, so that what is cut
// off is done again.
func setAside(root string) (string, error) {
	aside, err := nextBroken(root)
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return "", err
	}
	names := []string{}
	for _, entry := range entries {
		if name := entry.Name(); name != metadataDir && !strings.HasPrefix(name, ownPrefix) && name != "lost+found" {
			names = append(names, name)
		}
	}
	for _, name := range append(names, metadataDir) {
		if err := os.Rename(filepath.Join(root, name), filepath.Join(aside, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return aside, errors.Join(syncDir(root), lighten(aside))
}

// nextBroken makes the directory for what is set aside, and drops the oldest.
func nextBroken(root string) (string, error) {
	newest := 0
	entries, err := os.ReadDir(root)
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		var n int
		if _, err := fmt.Sscanf(entry.Name(), brokenDir, &n); err == nil {
			newest = max(newest, n)
		}
	}
	for _, entry := range entries {
		var n int
		if _, err := fmt.Sscanf(entry.Name(), brokenDir, &n); err == nil && n <= newest+1-maxBroken {
			if err := os.RemoveAll(filepath.Join(root, entry.Name())); err != nil {
				return "", err
			}
		}
	}
	dir := filepath.Join(root, fmt.Sprintf(brokenDir, newest+1))
	return dir, os.Mkdir(dir, 0o700)
}

// lighten deletes all but the databases, for there must be room for the images
// that are pulled again.
func lighten(aside string) error {
	keep := map[string]bool{}
	databases, _ := filepath.Glob(filepath.Join(aside, "*", "*.db"))
	for _, path := range databases {
		keep[path] = true
	}
	paths, _ := filepath.Glob(filepath.Join(aside, "*", "*"))
	var failed error
	for _, path := range paths {
		if !keep[path] {
			failed = errors.Join(failed, os.RemoveAll(path))
		}
	}
	return failed
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// end ends a daemon that is up without its database. One that is not up
// needs no ending.
func (d Daemon) end() error {
	pid, err := listener(d.Address)
	if err != nil {
		return nil
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return nil
	}
	if pid == 1 || !strings.HasPrefix(string(name), "containerd") {
		return fmt.Errorf("restart containerd: %s is served by process %d (%s), which is not ended", d.Address, pid, strings.TrimSpace(string(name)))
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		return fmt.Errorf("end containerd: %w: restart it", err)
	}
	return nil
}

// listener is the process that listens at a Unix socket.
func listener(address string) (pid int, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		return 0, err
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(peer.Pid), nil
}

// hasShims reports whether anything still runs that the daemon started.
func (d Daemon) hasShims() bool {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(line), "-address\x00"+d.Address+"\x00") {
			return true
		}
	}
	return false
}
