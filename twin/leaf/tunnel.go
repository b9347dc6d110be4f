package leaf

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tidemark-edge/tidemark/schema"
)

// tunnel is how the server gets to the hub: it takes it for an HTTP proxy, which is
// the one way to have a say in how the hub is connected to and when a connection is
// given up. Left to itself, the server makes one attempt after the other, each of
// which the kernel repeats ever more rarely, and holds on to a connection that has
// long been silent: when an outage is over, seconds pass before a packet goes that
// could tell.
//
//	server ──CONNECT──▶ attempts that overlap, until one comes about (reach)
//	server ──bytes────▶ passage ──bytes──▶ hub
//	                    while what was sent is repeated in vain: attempts beside it;
//	                    the first that comes about takes its place (watch)
//
// It reads and changes nothing of what passes: TLS is between the server and the
// hub. Only our own server knows the password, and gets to nothing but the hub.
type tunnel struct {
	hub      string // host:port
	listener net.Listener
	password string
	say      func(error) // told why the hub is not reached
	refusals *refusals   // by the hub
	end      context.CancelFunc
	running  sync.WaitGroup

	mu      sync.Mutex
	asking  []net.Conn // have not said yet what they want
	current *passage   // the newest; nil before the first
	number  int        // of current, from 1
	began   time.Time  // when that was made
	spare   net.Conn   // to the hub, that came about while current was silent; may be nil
	spared  time.Time  // when that was
}

const (
	tunnelUser  = "leaf"
	welcome     = "HTTP/1.1 200 OK\r\n\r\n"
	askLimit    = time.Second // for a request to come
	maxAsking   = 32          // connections that have not sent one
	holdLimit   = 24 * time.Hour
	spareLife   = 2 * time.Second        // of a connection that nobody asks for
	passPause   = 300 * time.Millisecond // between connections, whoever ends them
	dialEach    = 400 * time.Millisecond // between attempts while there is no link: packets of 60 bytes
	acceptPause = 100 * time.Millisecond // when no file is free, say
)

func openTunnel(hub *schema.HubLink, log *log) (*tunnel, error) {
	u, err := hubURL(hub)
	if err != nil {
		return nil, fmt.Errorf("link to the hub: %w", err)
	}
	say := func(err error) { log.say("link to the hub: %w", []any{err}) }
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("link to the hub: %w", err)
	}
	t := &tunnel{hub: u.Host, listener: listener, password: rand.Text(), say: say, refusals: log.refusals}
	ctx, end := context.WithCancel(context.Background())
	t.end = end
	t.running.Go(func() { t.accept(ctx) })
	return t, nil
}

// lead has a remote use the tunnel.
func (t *tunnel) lead(r *server.RemoteLeafOpts) {
	r.Proxy.URL = "http://" + t.listener.Addr().String()
	r.Proxy.Username, r.Proxy.Password = tunnelUser, t.password
	r.Proxy.Timeout = holdLimit
}

// close ends all connections.
func (t *tunnel) close() {
	t.end()
	t.listener.Close()
	t.mu.Lock()
	for _, c := range t.asking {
		c.Close()
	}
	t.mu.Unlock()
	t.running.Wait()
	t.keep(nil)
}

func (t *tunnel) accept(ctx context.Context) {
	for {
		conn, err := t.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			pause(ctx, acceptPause)
			continue
		}
		t.mu.Lock()
		t.asking = append(t.asking, conn)
		if len(t.asking) > maxAsking {
			t.asking[0].Close() // ours says at once what it wants
			t.asking = t.asking[1:]
		}
		t.mu.Unlock()
		t.running.Go(func() { t.serve(ctx, conn) })
	}
}

// serve takes one connection of the server to the hub, and ends with it.
func (t *tunnel) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	if !t.admits(conn) {
		return
	}
	t.mu.Lock()
	if t.current != nil {
		t.current.close() // the server has one link, and has given up the former
	}
	t.mu.Unlock()
	hub, err := t.connect(ctx)
	if err != nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 503 the device is shutting down\r\nContent-Length: 0\r\n\r\n")
		return
	}
	p := newPassage(conn, hub)
	defer p.close()
	t.mu.Lock()
	t.current, t.number, t.began = p, t.number+1, time.Now()
	t.mu.Unlock()
	if _, err := io.WriteString(conn, welcome); err == nil {
		p.run(ctx, t)
	}
}

// admits reads what a connection wants, and says whether it is our server.
func (t *tunnel) admits(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(askLimit))
	request, err := http.ReadRequest(bufio.NewReader(io.LimitReader(conn, 4<<10)))
	_ = conn.SetReadDeadline(time.Time{})
	t.mu.Lock()
	t.asking = slices.DeleteFunc(t.asking, func(c net.Conn) bool { return c == conn })
	t.mu.Unlock()
	if err != nil || request.Method != http.MethodConnect {
		return false
	}
	request.Header.Set("Authorization", request.Header.Get("Proxy-Authorization"))
	user, password, ok := request.BasicAuth()
	return ok && user == tunnelUser && subtle.ConstantTimeCompare([]byte(password), []byte(t.password)) == 1
}

// connect connects to the hub, and fails only when ctx ends.
func (t *tunnel) connect(ctx context.Context) (net.Conn, error) {
	if spare := t.take(); spare != nil {
		return spare, nil
	}
	t.mu.Lock()
	wait := passPause - time.Since(t.began)
	t.mu.Unlock()
	pause(ctx, wait)
	t.refusals.rest(ctx)
	return reach(ctx, t.hub, dialEach, t.say)
}

// passages counts them. The server ends its link before it asks for another.
func (t *tunnel) passages() int {
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.number
}

// keep has a connection wait for the server, and closes the one that does.
func (t *tunnel) keep(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spare != nil {
		t.spare.Close()
	}
	t.spare, t.spared = conn, time.Now()
}

// take returns the connection that waits, if it does not for too long.
func (t *tunnel) take() net.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	spare := t.spare
	t.spare = nil
	if spare != nil && time.Since(t.spared) > spareLife {
		spare.Close()
		return nil
	}
	return spare
}
