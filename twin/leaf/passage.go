package leaf

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// passage carries bytes between the server and the hub, until one of them has
// ended the connection, or the way to the hub is lost.
type passage struct {
	server, hub net.Conn
	sent        chan struct{} // holds one after something was sent to the hub
}

const (
	upBuffer   = 64 << 10 // what the server writes at a time
	downBuffer = 16 << 10
)

func newPassage(server, hub net.Conn) *passage {
	return &passage{server: server, hub: hub, sent: make(chan struct{}, 1)}
}

func (p *passage) close() {
	p.server.Close()
	p.hub.Close()
}

// run returns when the passage has ended, or ctx has.
func (p *passage) run(ctx context.Context, t *tunnel) {
	ctx, end := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() { defer end(); carry(p.hub, p.server, upBuffer, p.note) })
	all.Go(func() { defer end(); carry(p.server, p.hub, downBuffer, func() {}) })
	all.Go(func() { defer end(); p.watch(ctx, t) })
	<-ctx.Done()
	p.close()
	all.Wait()
}

// carry returns when one of the two does not go on.
func carry(to, from net.Conn, size int, carried func()) {
	buffer := make([]byte, size)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
			carried()
		}
		if err != nil {
			return
		}
	}
}

func (p *passage) note() {
	select {
	case p.sent <- struct{}{}:
	default:
	}
}

// A way that loses everything for a while, and resets no connection, leaves TCP
// waiting twice as long before each repetition: after 20 s it uses the way again 5 to
// 10 s after it is back. A hub that is slow is not taken for that: its kernel confirms
// what ours sends. A way that is slow is not either: the kernel knows by then how long
// it takes, and does not repeat before.
const (
	stallLook  = 250 * time.Millisecond // between looks, while something is not confirmed
	stallTries = 2                      // repetitions by the kernel that were in vain
	knockEach  = 250 * time.Millisecond // between attempts beside a connection that is silent
	stallLimit = 10 * time.Second       // of those, after which the link is down
	maxTrip    = 500 * time.Millisecond // that is waited for a repetition which may be under way
)

// watch ends the passage when the way to the hub is lost. While nothing is sent, it
// sleeps.
func (p *passage) watch(ctx context.Context, t *tunnel) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.sent:
		}
		for {
			if !pause(ctx, stallLook) {
				return
			}
			s := p.standing()
			if s.silent() && p.relieve(ctx, t) {
				p.abandon()
				return
			}
			if s.unconfirmed == 0 {
				break
			}
		}
	}
}

// relieve looks for another connection while this one is silent, and leaves it to
// the tunnel. It reports whether the passage has to end: where it is heard again, it
// need not.
func (p *passage) relieve(ctx context.Context, t *tunnel) bool {
	ctx, end := context.WithTimeout(ctx, stallLimit)
	defer end()
	var heard sync.WaitGroup
	defer heard.Wait()
	defer end()
	heard.Go(func() {
		for p.standing().silent() && pause(ctx, stallLook) {
		}
		end()
	})
	conn, err := reach(ctx, t.hub, knockEach, t.say)
	if err != nil {
		return p.standing().silent()
	}
	pause(ctx, min(p.standing().trip, maxTrip))
	if !p.standing().silent() {
		conn.Close()
		return false
	}
	t.keep(conn)
	return true
}

// abandon has the kernel forget what was not confirmed: it is sent anew by those
// who want it there.
func (p *passage) abandon() {
	if conn, ok := p.hub.(*net.TCPConn); ok {
		_ = conn.SetLinger(0)
	}
}

// standing is what the kernel knows of the connection to the hub.
type standing struct {
	unconfirmed uint32        // packets that were sent
	repeated    uint8         // times that the oldest of them was sent again, in vain
	trip        time.Duration // to the hub and back, when it was last heard
}

func (s standing) silent() bool { return s.unconfirmed > 0 && s.repeated >= stallTries }

// standing is zero once the connection is closed.
func (p *passage) standing() (s standing) {
	conn, ok := p.hub.(syscall.Conn)
	if !ok {
		return s
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return s
	}
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			s = standing{info.Unacked, info.Retransmits, time.Duration(info.Rtt) * time.Microsecond}
		}
	})
	return s
}
