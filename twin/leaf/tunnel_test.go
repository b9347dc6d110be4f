package leaf

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// remote is a device whose hub is at the end of a way.
type remote struct {
	*site
	t     *testing.T
	way   *harness.Way
	hub   *hub
	leaf  *Leaf
	conn  *nats.Conn // to the hub
	inbox *nats.Subscription
	sent  int
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	r := &remote{t: t, site: newSite(t), way: harness.NewWay(t)}
	r.hub = startHub(t, deviceIdentity(t, r.site), 0, true, nil)
	echo := r.hub.connect(t)
	if _, err := echo.Subscribe("up.d1.echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	r.config.Hub = &schema.HubLink{URL: "nats-leaf://" + r.way.Lead(fmt.Sprintf("127.0.0.1:%d", r.hub.port))}
	return r
}

func (r *remote) start() {
	r.t.Helper()
	r.leaf = r.open()
	waitLinked(r.t, r.leaf, true)
	var err error
	if r.conn, err = r.leaf.ConnectHub("test"); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.conn.Close)
	if r.inbox, err = r.conn.SubscribeSync(r.conn.NewInbox()); err != nil {
		r.t.Fatal(err)
	}
	r.answered()
}

// say sends the hub something that it answers once it arrives.
func (r *remote) say() {
	r.t.Helper()
	r.sent++
	if err := r.conn.PublishRequest("up.d1.echo", r.inbox.Subject, fmt.Append(nil, r.sent)); err != nil {
		r.t.Fatal(err)
	}
}

// answered says something, again and again, until what was said since comes back.
func (r *remote) answered() {
	r.t.Helper()
	since := r.sent
	eventually(r.t, "the hub answers", func() bool {
		r.say()
		m, err := r.inbox.NextMsg(50 * time.Millisecond)
		var number int
		_, _ = fmt.Sscan(string(answerOf(m, err)), &number) // an answer that nobody is there is empty
		return number > since
	})
}

func answerOf(m *nats.Msg, err error) []byte {
	if err != nil {
		return nil
	}
	return m.Data
}

// link is the connection of the device by the hub's number.
func (r *remote) link() uint64 {
	r.t.Helper()
	z, err := r.hub.Leafz(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	var newest uint64
	for _, l := range z.Leafs {
		newest = max(newest, l.ID)
	}
	return newest
}

// silent waits until the kernel has repeated so often what it sent to the hub.
func (r *remote) silent(times uint8) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("the kernel repeats %d times", times), func() bool {
		tunnel := r.leaf.server.tunnel
		tunnel.mu.Lock()
		p := tunnel.current
		tunnel.mu.Unlock()
		return p.standing().repeated >= times
	})
}

// TestIotedge6006ALinkThatWasSilentIsMadeAnew, before TCP would use the way again:
// that is 6 s later, when it was silent for as long.
func TestIotedge6006ALinkThatWasSilentIsMadeAnew(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	r.start()
	before := r.link()
	r.way.Cut()
	r.say()
	r.silent(5)
	time.Sleep(100 * time.Millisecond) // until the fifth is lost as well
	r.way.Mend()
	r.answered()
	if r.link() == before {
		t.Error("the link was not made anew")
	}
}

// TestALinkThatIsSilentForLongIsDown, and said to be, so that nobody waits for
// answers; and is back when the way is, without TCP's pauses.
func TestALinkThatIsSilentForLongIsDown(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	r.start()
	r.way.Cut()
	r.say()
	waitLinked(t, r.leaf, false)
	tried := r.way.Attempts()
	eventually(t, "attempts go on", func() bool { return r.way.Attempts() >= tried+10 })
	r.way.Mend()
	waitLinked(t, r.leaf, true)
	r.answered()
}

// TestASlowWayIsNotTakenForALostOne: neither where it becomes slow, and the kernel
// repeats at first what is only late, nor where it always was. nats-server (2.15)
// does not link where a round trip takes two seconds.
func TestASlowWayIsNotTakenForALostOne(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	r.start()
	before := r.link()
	r.way.Delay(600 * time.Millisecond) // in each direction
	for range 3 {
		r.answered()
	}
	if r.link() != before {
		t.Error("the link was ended when the way became slow")
	}
	r.leaf.Close()
	r.start()
	before = r.link()
	tried := r.way.Attempts()
	for range 3 {
		r.answered()
	}
	if r.link() != before {
		t.Error("a link over a slow way was ended")
	}
	if more := r.way.Attempts() - tried; more > 0 {
		t.Errorf("%d attempts beside a link that works", more)
	}
}

// TestClosingDoesNotWaitForTheHub, nor for what it will never confirm.
func TestClosingDoesNotWaitForTheHub(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	r.start()
	r.way.Cut()
	r.say()
	r.silent(2)
	closesSoon(t, r.leaf)
	l := r.open() // which finds nobody
	eventually(t, "it tries", func() bool { return strings.Contains(r.warned(), "link to the hub: dial tcp") })
	closesSoon(t, l)
}

func closesSoon(t *testing.T, l *Leaf) {
	t.Helper()
	closed := make(chan error)
	go func() { closed <- l.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("closing waits")
	}
}

// standIn is a tunnel to an address where the test answers in place of a hub.
func standIn(t *testing.T) (*tunnel, net.Listener) {
	t.Helper()
	hub, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hub.Close() })
	tunnel, err := openTunnel(&schema.HubLink{URL: "nats-leaf://" + hub.Addr().String()}, newLog(func(error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tunnel.close)
	return tunnel, hub
}

// ask connects to a tunnel and says this.
func (t *tunnel) ask(test *testing.T, request string) net.Conn {
	test.Helper()
	conn, err := net.Dial("tcp", t.listener.Addr().String())
	if err != nil {
		test.Fatal(err)
	}
	test.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, request) // which it may have cut short
	return conn
}

// request is what the server says.
func (t *tunnel) request() string {
	basic := base64.StdEncoding.EncodeToString([]byte(tunnelUser + ":" + t.password))
	return "CONNECT hub:7422 HTTP/1.1\r\nHost: hub:7422\r\nProxy-Authorization: Basic " + basic + "\r\n\r\n"
}

// open is a connection through a tunnel, with both ends.
func (t *tunnel) open(test *testing.T, hub net.Listener) (server, far net.Conn) {
	test.Helper()
	server = t.ask(test, t.request())
	far, err := hub.Accept()
	if err != nil {
		test.Fatal(err)
	}
	test.Cleanup(func() { far.Close() })
	answer, err := http.ReadResponse(bufio.NewReaderSize(io.LimitReader(server, int64(len(welcome))), 16), nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		test.Fatalf("the tunnel answers %v, %v", answer, err)
	}
	return server, far
}

// TestNobodyButTheServerIsLedToTheHub, and nobody else disturbs its connection.
func TestNobodyButTheServerIsLedToTheHub(t *testing.T) {
	tunnel, hub := standIn(t)
	server, far := tunnel.open(t, hub)
	good := tunnel.request()
	for name, request := range map[string]string{
		"nothing":           "",
		"noise":             "\x00\xff\r\n\r\n",
		"the protocol":      "INFO {}\r\nCONNECT {}\r\n",
		"no password":       "CONNECT hub:7422 HTTP/1.1\r\nHost: hub:7422\r\n\r\n",
		"another password":  strings.Replace(good, "Basic ", "Basic AAAA", 1),
		"another scheme":    strings.Replace(good, "Basic ", "Bearer ", 1),
		"the web's header":  strings.Replace(good, "Proxy-Authorization", "Authorization", 1),
		"another method":    strings.Replace(good, "CONNECT hub:7422", "GET /", 1),
		"half of it":        good[:len(good)-2],
		"one without end":   strings.TrimSuffix(good, "\r\n") + "X: " + strings.Repeat("x", 1<<20),
		"many without ends": strings.TrimSuffix(good, "\r\n") + strings.Repeat("X: y\r\n", 1<<16),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := tunnel.ask(t, request)
			if got, _ := io.ReadAll(conn); len(got) > 0 {
				t.Errorf("it is told %q", got)
			}
		})
	}
	t.Run("many that say nothing", func(t *testing.T) {
		t.Parallel()
		for range 4 * maxAsking {
			tunnel.ask(t, "")
		}
	})
	t.Cleanup(func() {
		say := []byte("still here")
		if _, err := server.Write(say); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(say))
		if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, say) {
			t.Errorf("the hub gets %q, %v", got, err)
		}
	})
}

// TestAPassageCarriesAllBeforeItEnds, in both directions: the hub's last word is why
// it ends a link.
func TestAPassageCarriesAllBeforeItEnds(t *testing.T) {
	tunnel, hub := standIn(t)
	much := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, name := range []string{"to the hub", "to the server"} {
		t.Run(name, func(t *testing.T) {
			from, to := tunnel.open(t, hub)
			if name == "to the server" {
				from, to = to, from
			}
			go func() {
				_, _ = from.Write(much)
				from.Close()
			}()
			_ = to.SetDeadline(time.Now().Add(patience))
			got, err := io.ReadAll(to)
			if err != nil || !bytes.Equal(got, much) {
				t.Errorf("%d bytes of %d, %v", len(got), len(much), err)
			}
		})
	}
}

// TestAHubThatEndsEachConnectionIsNotAskedWithoutAPause.
func TestAHubThatEndsEachConnectionIsNotAskedWithoutAPause(t *testing.T) {
	tunnel, hub := standIn(t)
	var last time.Time
	for i := range 4 {
		conn := tunnel.ask(t, tunnel.request())
		far, err := hub.Accept()
		if err != nil {
			t.Fatal(err)
		}
		// The pause counts from when the tunnel had the connection, just before.
		now := time.Now()
		if i > 0 && now.Sub(last) < passPause/2 {
			t.Errorf("asked again after %v", now.Sub(last))
		}
		last = now
		far.Close()
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAConnectionThatNobodyAsksForIsNotUsedLater: the hub has given it up.
func TestAConnectionThatNobodyAsksForIsNotUsedLater(t *testing.T) {
	tunnel, hub := standIn(t)
	spare := func() (net.Conn, net.Conn) {
		near, err := net.Dial("tcp", hub.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		far, err := hub.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { far.Close() })
		tunnel.keep(near)
		return near, far
	}
	near, _ := spare()
	if tunnel.take() != near {
		t.Error("it is not used at once")
	}
	near.Close()
	_, far := spare()
	tunnel.mu.Lock()
	tunnel.spared = time.Now().Add(-spareLife - time.Second)
	tunnel.mu.Unlock()
	if tunnel.take() != nil {
		t.Error("it is used late")
	}
	_ = far.SetDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, far); err != nil {
		t.Errorf("it stays open: %v", err)
	}
}

// TestAHubThatComesUpIsReached by one of the attempts, of which a person is told one.
func TestAHubThatComesUpIsReached(t *testing.T) {
	address := harness.FreeAddress(t)
	said := make(chan error, 100)
	tunnel, err := openTunnel(&schema.HubLink{URL: "nats-leaf://" + address}, newLog(func(err error) { said <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tunnel.close)
	conn := tunnel.ask(t, tunnel.request())
	if err := <-said; !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
	hub, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	far, err := hub.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	got := make([]byte, len(welcome))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != welcome {
		t.Errorf("%q, %v", got, err)
	}
	if len(said) > 0 {
		t.Errorf("a person is told more: %v", <-said)
	}
}

// TestALinkThatIsBackBeforeItWasMissedIsTold: what went over the former may be lost.
func TestALinkThatIsBackBeforeItWasMissedIsTold(t *testing.T) {
	k := &link{changed: make(chan struct{})}
	for _, see := range []struct {
		up      bool
		passage int
		want    bool
	}{
		{false, 0, false}, {false, 1, false}, {true, 1, true}, {true, 1, false}, {true, 2, true},
		{false, 2, true}, {false, 3, false}, {true, 3, true}, {true, 3, false},
	} {
		_, _, changed := k.state()
		k.see(see.up, see.passage)
		told := false
		select {
		case <-changed:
			told = true
		default:
		}
		if up, _, _ := k.state(); up != see.up || told != see.want {
			t.Errorf("%+v: up %v, told %v", see, up, told)
		}
	}
}
