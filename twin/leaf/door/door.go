package door

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// watch closes the door when its process has ended.
func (d *Doors) watch(o *door) {
	// A pidfd becomes readable when its process ends. The runtime's poller waits
	// for that with no thread of its own.
	conn, err := o.process.SyscallConn()
	if err == nil {
		err = conn.Read(func(uintptr) bool { return ended(o.process) })
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byRoom[o.room] != o {
		return // shut already
	}
	if err != nil {
		d.warn(fmt.Errorf("watch the process of module %s: %w; its door is closed", o.room.module, err))
	}
	d.shut(o)
}

// shut closes a door and every connection that came in by it. The caller holds
// d.mu.
func (d *Doors) shut(o *door) {
	o.listener.Close()
	o.process.Close()
	for c := range o.conns {
		c.Close()
	}
	if d.byRoom[o.room] == o {
		delete(d.byRoom, o.room)
	}
}

// Keep shuts the doors of all modules but these.
func (d *Doors) Keep(keep map[string]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for r, o := range d.byRoom {
		if !keep[r.module] {
			d.shut(o)
		}
	}
}

// Close shuts all doors, for good.
func (d *Doors) Close() {
	d.mu.Lock()
	d.closed = true
	for _, o := range d.byRoom {
		d.shut(o)
	}
	d.mu.Unlock()
	d.wait.Wait()
}

// accept passes connections on to the server until the door is shut.
func (d *Doors) accept(o *door) {
	for {
		conn, err := o.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of file descriptors, or the client is gone already
			time.Sleep(10 * time.Millisecond)
			continue
		}
		select {
		case o.slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		if !d.enter(o, conn) {
			<-o.slots
			continue
		}
		d.wait.Go(func() {
			defer func() { <-o.slots }()
			defer d.leave(o, conn)
			d.pass(o.room.module, conn)
		})
	}
}

func (d *Doors) enter(o *door, c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byRoom[o.room] != o {
		c.Close()
		return false
	}
	o.conns[c] = struct{}{}
	return true
}

func (d *Doors) leave(o *door, c net.Conn) {
	c.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(o.conns, c)
}

// pass connects a client to the server over the device's own loopback, where
// the kernel moves the bytes. The source port tells the server's admission whose
// door it was, before the client can say a word.
func (d *Doors) pass(module string, client net.Conn) {
	inside, err := net.Dial("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(d.port)))
	if err != nil {
		return // the server is closing
	}
	defer inside.Close()
	port := inside.LocalAddr().(*net.TCPAddr).Port
	d.gate.CameBy(port, module)
	defer d.gate.Left(port)
	done := make(chan struct{}, 2)
	copyTo := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // its end, clean or not, is the end of the connection
		done <- struct{}{}
	}
	go copyTo(inside, client)
	go copyTo(client, inside)
	<-done
	client.Close()
	inside.Close()
	<-done
}
