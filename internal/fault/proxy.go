package fault

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy forwards TCP connections, badly where it is told to.
type Proxy struct {
	Address string       // where it listens
	Taken   atomic.Int64 // connections that came, so far
	Up      atomic.Int64 // bytes towards the target, so far
	Down    atomic.Int64 // bytes from it

	target   string
	listener net.Listener

	mu      sync.Mutex
	conns   map[net.Conn]bool
	refuse  bool
	silent  bool
	delay   time.Duration
	cutEach int64
}

// NewProxy forwards what comes at listen, "host:port" with port 0 for a free one,
// to target.
func NewProxy(t testing.TB, listen, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Address: listener.Addr().String(), target: target, listener: listener, conns: map[net.Conn]bool{}}
	t.Cleanup(p.Close)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.Taken.Add(1)
			go p.serve(conn)
		}
	}()
	return p
}

// Close ends it.
func (p *Proxy) Close() { p.listener.Close(); p.Cut() }

// Cut ends all connections and refuses new ones, until Restore.
func (p *Proxy) Cut() { p.set(func() { p.refuse = true }); p.CutNow() }

// Blackhole forwards nothing more in either direction and says so to nobody, until
// Restore. Connections stay, and new ones are taken.
func (p *Proxy) Blackhole() { p.set(func() { p.silent = true }) }

// Delay holds every piece of data back for as long, until Restore.
func (p *Proxy) Delay(d time.Duration) { p.set(func() { p.delay = d }) }

// CutEach ends each connection after so many bytes from the target, until Restore.
func (p *Proxy) CutEach(bytes int64) { p.set(func() { p.cutEach = bytes }) }

// Restore forwards well again. Connections over which something was lost are ended.
func (p *Proxy) Restore() {
	silent := false
	p.set(func() { silent, p.refuse, p.silent, p.delay, p.cutEach = p.silent, false, false, 0, 0 })
	if silent {
		p.CutNow()
	}
}

// CutNow ends all connections that there are.
func (p *Proxy) CutNow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
	}
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// keep notes a connection; it is not taken while the link is cut.
func (p *Proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse {
		conn.Close()
		return false
	}
	p.conns[conn] = true
	return true
}

func (p *Proxy) drop(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn.Close()
	delete(p.conns, conn)
}

func (p *Proxy) serve(client net.Conn) {
	if !p.keep(client) {
		return
	}
	defer p.drop(client)
	target, err := net.Dial("tcp", p.target)
	if err != nil || !p.keep(target) {
		return
	}
	defer p.drop(target)
	done := make(chan struct{}, 2)
	go func() { p.copy(target, client, &p.Up, false); done <- struct{}{} }()
	go func() { p.copy(client, target, &p.Down, true); done <- struct{}{} }()
	<-done // one end gone is enough: neither HTTP nor NATS uses half a connection
}

// copy forwards one direction until it ends.
func (p *Proxy) copy(to, from net.Conn, count *atomic.Int64, bounded bool) {
	buffer := make([]byte, 32<<10)
	total := int64(0)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		silent, delay, bound := p.silent, p.delay, p.cutEach
		p.mu.Unlock()
		if silent {
			n = 0
		}
		if delay > 0 {
			time.Sleep(delay)
		}
		if bounded && bound > 0 {
			n = int(min(int64(n), bound-total))
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
			count.Add(int64(n))
			total += int64(n)
		}
		if err != nil && err != io.EOF || err == io.EOF || bounded && bound > 0 && total >= bound {
			return
		}
	}
}
