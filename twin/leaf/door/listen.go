// Package door answers for the leaf inside the network namespaces of modules: their
// 127.0.0.1 at the leaf's port is then the leaf, and who comes in there is the module,
// or nobody.
package door

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/netns"
)

// maxConnections is how many connections at a time come in by one door: more than a
// module may have, so that it learns of that bound from the server.
const maxConnections = 16

// Gate is told whose door a connection to the server comes from, before it can say a
// word, by its source port on the device's own loopback.
type Gate interface {
	CameBy(port int, module string)
	Left(port int)
}

// Doors are the listeners inside the modules' namespaces. Their methods may be called
// at the same time.
type Doors struct {
	port int    // that they listen on, and that the server does
	own  uint64 // inode of the device's own network namespace
	gate Gate
	warn func(error)

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

// New opens no door yet. The leaf listens on port, and so do the doors. warn is told
// what a person should know, from any goroutine.
func New(port int, gate Gate, warn func(error)) (*Doors, error) {
	var own unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return &Doors{port: port, own: own.Ino, gate: gate, warn: warn, byRoom: map[room]*door{}}, nil
}

// Open opens the door of a module in the namespace of this process of it, whose
// loopback it brings up. A second call for the same namespace, and a call for a
// process on the device's own network, change nothing. The door closes when the
// process has ended.
func (d *Doors) Open(module string, pid int) error {
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
		slots: make(chan struct{}, maxConnections), conns: map[net.Conn]struct{}{},
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
