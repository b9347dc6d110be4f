package leaf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/netns"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
)

// maxDoorConnections is how many connections at a time come in by one door. It
// is above maxModuleConnections, so that a module learns of that bound from the
// server.
const maxDoorConnections = 2 * maxModuleConnections

// Attach answers for the leaf inside the network namespace of a process of a
// module: its 127.0.0.1 at the leaf's port is then the leaf. It brings the
// namespace's loopback up. Whoever comes in there is the module, or nobody. A
// second call for the same namespace, and a call for a process on the device's
// own network, change nothing. The door closes when the process has ended, and
// with the leaf.
func (l *Leaf) Attach(_ context.Context, module string, pid int) error {
	if err := schema.CheckName(module); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if err := l.doors.open(module, pid); err != nil {
		return fmt.Errorf("attach module %s, process %d: %w", module, pid, err)
	}
	if _, err := identity.ModuleKey(l.config.RunDir, module); errors.Is(err, identity.ErrNoSeed) {
		// The mount in its container shows a directory that was deleted.
		l.warn(fmt.Errorf("module %s runs, but its credential in %s was deleted, so it has no twin and cannot send: it gets a new one when it starts again (kill %d)", module, l.config.RunDir, pid))
	}
	return nil
}

// doors are the listeners inside the modules' namespaces.
type doors struct {
	port      int    // that they listen on, and that the server does
	own       uint64 // inode of the device's own network namespace
	admission *admission
	warn      func(error)

	mu     sync.Mutex
	byRoom map[room]*door
	closed bool
	wait   sync.WaitGroup
}

// room is a network namespace as a module's: inode numbers are not used twice
// while somebody lives in the namespace, and the door closes when nobody does.
type room struct {
	module string
	inode  uint64
}

// door is one listener.
type door struct {
	room     room
	listener net.Listener
	process  *os.File // pidfd of the process that it was opened for
	slots    chan struct{}
	conns    map[net.Conn]struct{} // guarded by doors.mu
}

func newDoors(port int, a *admission, warn func(error)) (*doors, error) {
	var own unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return &doors{port: port, own: own.Ino, admission: a, warn: warn, byRoom: map[room]*door{}}, nil
}

func (d *doors) open(module string, pid int) error {
	if pid <= 0 {
		return errors.New("no such process")
	}
	// The pidfd comes first: what it names is what the namespace is then read of,
	// or it has ended and is seen to have.
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK) // Linux 5.10
	if err != nil {
		return fmt.Errorf("pidfd: %w", err)
	}
	process := os.NewFile(uintptr(fd), "pidfd")
	namespace, inode, err := openNamespace(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		process.Close()
		return err
	}
	defer namespace.Close()
	if inode == d.own {
		process.Close()
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r := room{module, inode}
	if d.closed || d.byRoom[r] != nil && !ended(d.byRoom[r].process) {
		process.Close()
		if d.closed {
			return net.ErrClosed
		}
		return nil
	}
	if old := d.byRoom[r]; old != nil { // its process ended; the room lives on with this one
		d.shut(old)
	}
	listener, err := listenIn(namespace, d.port)
	if err != nil {
		process.Close()
		return err
	}
	opened := &door{
		room: r, listener: listener, process: process,
		slots: make(chan struct{}, maxDoorConnections), conns: map[net.Conn]struct{}{},
	}
	d.byRoom[r] = opened
	d.wait.Go(func() { d.accept(opened) })
	d.wait.Go(func() { d.watch(opened) })
	return nil
}

func openNamespace(path string) (*os.File, uint64, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	var s unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &s); err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, s.Ino, nil
}

// listenIn opens a listener on the loopback of a network namespace. A socket
// stays in the namespace it was made in.
func listenIn(namespace *os.File, port int) (listener net.Listener, err error) {
	err = netns.Do(namespace, func() error {
		if err := netns.LoopbackUp(); err != nil {
			return fmt.Errorf("bring the loopback up: %w", err)
		}
		listener, err = net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		return err
	})
	return listener, err
}

// ended reports whether the process of a pidfd has. It does not wait.
func ended(process *os.File) bool {
	conn, err := process.SyscallConn()
	if err != nil {
		return true // closed
	}
	n := 0
	err = conn.Control(func(fd uintptr) {
		for again := true; again; { // the runtime's own signals interrupt
			var err error
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			again = err == unix.EINTR
		}
	})
	return n > 0 || err != nil
}
