package leaf

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/admission"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
)

// hostile is a device with a victim, a module that is out for harm, and a spy
// that sees every message inside the device.
type hostile struct {
	*site
	leaf   *Leaf
	conn   *nats.Conn // of the hostile module, named evil
	spy    *nats.Subscription
	spying *nats.Conn
	errs   chan error
}

func newHostile(t *testing.T) *hostile {
	s := newSite(t)
	h := &hostile{site: s, leaf: s.open(), errs: make(chan error, 1024)}
	s.declare(h.leaf, declared("evil", "victim"))
	h.conn = s.module(h.leaf, "evil", nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { h.errs <- err }))
	var err error
	if h.spying, err = h.leaf.Connect("spy"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.spying.Close)
	if h.spy, err = h.spying.SubscribeSync(">"); err != nil {
		t.Fatal(err)
	}
	if err := h.spying.Flush(); err != nil {
		t.Fatal(err)
	}
	return h
}

// seen returns the subjects of all messages that the spy has seen so far.
func (h *hostile) seen() []string {
	h.t.Helper()
	if err := h.conn.Flush(); err != nil {
		h.t.Fatal(err)
	}
	if err := h.spying.Publish("spy.mark", nil); err != nil {
		h.t.Fatal(err)
	}
	var subjects []string
	for {
		m, err := h.spy.NextMsg(patience)
		if err != nil {
			h.t.Fatal(err)
		}
		if m.Subject == "spy.mark" {
			return subjects
		}
		subjects = append(subjects, m.Subject)
	}
}

func (h *hostile) wantViolation(what string) {
	h.t.Helper()
	select {
	case err := <-h.errs:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			h.t.Errorf("%s: %v", what, err)
		}
	case <-time.After(patience):
		h.t.Errorf("%s: not refused", what)
	}
}

// unharmed checks that the victim still gets its answers.
func (h *hostile) unharmed() {
	h.t.Helper()
	conn := h.module(h.leaf, "victim")
	defer conn.Close()
	if _, err := report(h.t, conn, "victim", `{"alive": true}`); err != nil {
		h.t.Errorf("the victim: %v", err)
	}
}

const (
	evil   = "devices.d1.modules.evil"
	victim = "devices.d1.modules.victim"
)

func TestHostilePublish(t *testing.T) {
	h := newHostile(t)
	for _, subject := range []string{
		victim + ".twin.get", victim + ".twin.reported", victim + ".twin.desired",
		victim + ".out.x", victim + ".in.x", victim + ".rpc.x",
		evil + ".twin.desired", evil + ".in.x", evil + ".rpc.x", evil + ".twin.get.x", evil + ".out", evil + ".x", evil,
		"devices.d1.twin.get", "devices.d1.twin.reported", "devices.d1.rpc.reconcile", "devices.d1.out.x",
		"devices.d2.modules.evil.twin.get", "devices.d1.modules.*.twin.reported", "devices.d1.modules.>",
		"up.d1.out.evil.x", "up.d1.twin", "up.d1.resume", "fleet.moved",
		"_INBOX.d1.x", "_INBOX.x", "_INBOX.devices.d1.modules.victim.x", "_INBOX.devices.d1.modules.evil.x",
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.CREATE.X", "$JS.d1.API.INFO", "$JS.ACK.X.Y.1.1.1.1.1",
		"$JSC.R.x", "$KV.b.k", "$O.b.k", "$SRV.PING", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING", "$SYS.ACCOUNT.LOCAL.CONNECT",
		"$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.ACCOUNT.NSUBS", "$SYS.DEBUG.SUBSCRIBERS", "$SYS._INBOX.x", "$SYS.ACCOUNT.UPLINK.LEAFNODE.CONNECT",
		"$JS.FC.S.c.x", "$JS.API.DIRECT.GET.OUTBOX_hub", "$JS.API.CONSUMER.MSG.NEXT.S.c", "$MQTT.sess.x", "$LDS.x", "$G.x",
		"_R_.x.y", "_GR_.x", "$NRG.x", "x", "$",
	} {
		if err := h.conn.PublishRequest(subject, twin.Inbox("d1", "evil")+".r", []byte(`{"a":1}`)); err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		if subjects := h.seen(); len(subjects) != 0 {
			t.Errorf("publish to %s: reached %v", subject, subjects)
		}
		h.wantViolation("publish to " + subject)
	}
	h.unharmed()
}

func TestHostileSubscribe(t *testing.T) {
	h := newHostile(t)
	for _, subject := range []string{
		">", "*", "*.>", "devices.>", "devices.d1.>", "devices.*.modules.*.in.*", "devices.d1.modules.*.twin.desired",
		"devices.d1.modules.victim.>", victim + ".in.x", victim + ".in.>", victim + ".out.>", victim + ".rpc.x", victim + ".twin.desired", victim + ".twin.reported",
		evil + ".>", evil + ".twin.*", evil + ".twin.get", evil + ".twin.reported", evil + ".out.>", evil + ".*.x",
		"devices.d1.twin.desired", "devices.d1.rpc.status", "up.>", "fleet.moved",
		"_INBOX.>", "_INBOX.*", "_INBOX.d1.>", "_INBOX.*.d1.modules.evil.>", "_INBOX.devices.d1.modules.*.>", "_INBOX.devices.d1.modules.victim.>",
		"$JS.>", "$JS.EVENT.>", "$KV.>", "$O.>", "$SYS.>", "$SYS.ACCOUNT.LOCAL.>", "$SRV.>", "$SRV.PING", "_R_.>", "$JSC.>",
		"*.d1.>", "devices.*.twin.desired", "_INBOX.d1.*", "_INBOX.*.*", "_INBOX.*.d1.>", "$JS.ACK.>", "$JS.FC.>", "$JS.API.>", "$MQTT.>", "$LDS.>", "plant.>",
	} {
		for _, queue := range []string{"", "q"} {
			sub, err := h.conn.QueueSubscribeSync(subject, queue)
			if queue == "" {
				sub, err = h.conn.SubscribeSync(subject)
			}
			if err != nil {
				t.Fatalf("%s: %v", subject, err)
			}
			h.wantViolation("subscribe to " + subject + " " + queue)
			_ = sub.Unsubscribe()
		}
	}
	if subjects := h.seen(); len(subjects) != 0 {
		t.Errorf("messages %v", subjects)
	}
	h.unharmed()
}

func TestOwnScopeIsPermitted(t *testing.T) {
	h := newHostile(t)
	for _, subject := range []string{evil + ".twin.desired", evil + ".in.>", evil + ".in.x", evil + ".rpc.>", evil + ".rpc.x", twin.Inbox("d1", "evil") + ".>"} {
		if _, err := h.conn.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
	}
	for _, subject := range []string{evil + ".twin.get", evil + ".twin.reported", evil + ".out.x", evil + ".out.x.y"} {
		if err := h.conn.Publish(subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if subjects := h.seen(); len(subjects) != 4 {
		t.Errorf("arrived: %v", subjects)
	}
	if len(h.errs) > 0 {
		t.Errorf("refused: %v", <-h.errs)
	}
}

// An answer is published with the agent's permissions, so a request must not
// choose freely where it goes.
func TestHostileReplySubject(t *testing.T) {
	h := newHostile(t)
	asking := h.module(h.leaf, "evil")
	for _, reply := range []string{
		victim + ".in.x", victim + ".twin.desired", victim + ".twin.reported", "up.d1.out.evil.x", "_INBOX.devices.d1.modules.victim.x",
		"devices.d1.rpc.reconcile", "$JS.API.STREAM.DELETE.X", "_INBOX.devices.d1.modules.evil", "_INBOX.devices.d1.modules.evil2.x",
		"_INBOX.devices.d1.modules.evil.>", "_INBOX.devices.d1.modules.evil.*", "_INBOX.d12.x",
	} {
		for _, subject := range []string{evil + ".twin.get", evil + ".twin.reported"} {
			if err := h.conn.PublishRequest(subject, reply, []byte(`{"a":1}`)); err != nil {
				t.Fatal(err)
			}
			get(t, asking, "evil") // answered after it
			for _, got := range h.seen() {
				if got == reply {
					t.Errorf("an answer went to %s", reply)
				}
			}
		}
	}
	h.unharmed()
}

func TestHostileHeaders(t *testing.T) {
	h := newHostile(t)
	for _, headers := range []nats.Header{
		{"Nats-Trace-Dest": {victim + ".in.x"}},
		{"Nats-Trace-Dest": {"up.d1.out.evil.x"}, "Nats-Trace-Only": {"true"}},
		{"Nats-Trace-Dest": {"$SYS.REQ.SERVER.PING"}},
		{"Nats-Request-Info": {`{"acc":"$SYS","user":"agent"}`}},
		{"Nats-Trace-Origin-Account": {"$SYS"}, "Nats-Trace-Dest": {victim + ".in.x"}},
		{"traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}},
		{"Nats-Expected-Stream": {"X"}, "Nats-Rollup": {"all"}, "Nats-Msg-Id": {"1"}},
		{"Status": {"503"}},
	} {
		m := &nats.Msg{Subject: evil + ".out.x", Header: headers, Data: []byte("x")}
		if err := h.conn.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
		for _, got := range h.seen() {
			if got != evil+".out.x" {
				t.Errorf("headers %v: something went to %s", headers, got)
			}
		}
	}
	h.unharmed()
}

// A module may answer the requests that it got, once each, and so has no way to
// speak to those who asked.
func TestResponsesOnly(t *testing.T) {
	h := newHostile(t)
	sub, err := h.conn.SubscribeSync(evil + ".rpc.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan string, 1)
	go func() {
		m, err := h.spying.Request(evil+".rpc.ping", nil, patience)
		if err != nil {
			answer <- err.Error()
			return
		}
		answer <- string(m.Data)
	}()
	m, err := sub.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Respond([]byte("pong")); err != nil {
		t.Fatal(err)
	}
	if got := <-answer; got != "pong" {
		t.Errorf("answer is %q", got)
	}
	if err := m.Respond([]byte("again")); err != nil {
		t.Fatal(err)
	}
	h.wantViolation("second answer to the same request")
	if err := h.conn.Publish(m.Reply+"x", nil); err != nil {
		t.Fatal(err)
	}
	h.wantViolation("answer to another's request")
}

func TestHostileCredentials(t *testing.T) {
	h := newHostile(t)
	stranger, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	strange, _ := stranger.PublicKey()
	victimKey, err := identity.ModuleKey(h.config.RunDir, "victim")
	if err != nil {
		t.Fatal(err)
	}
	for name, option := range map[string]nats.Option{
		"none":                 nats.Name("x"),
		"unknown key":          nats.Nkey(strange, stranger.Sign),
		"key without its seed": nats.Nkey(victimKey, stranger.Sign),
		"empty signature":      nats.Nkey(victimKey, func([]byte) ([]byte, error) { return nil, nil }),
		"not a key":            nats.Nkey("UABC", stranger.Sign),
		"name and password":    nats.UserInfo("agent", ""),
		"token":                nats.Token("agent"),
	} {
		conn, err := nats.Connect(h.leaf.ClientURL(), option)
		if err == nil {
			conn.Close()
			t.Errorf("%s: admitted", name)
		} else if !errors.Is(err, nats.ErrAuthorization) && !errors.Is(err, nats.ErrNkeysNotSupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.unharmed()
}

func TestHostileNumbers(t *testing.T) {
	h := newHostile(t)
	var refused atomic.Int32
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			for range 6 {
				if _, err := h.dial(h.leaf.ClientURL(), "evil", nats.NoReconnect()); err != nil {
					refused.Add(1)
				}
			}
		})
	}
	wait.Wait()
	if want := int32(300 - admission.MaxConnections + 1); refused.Load() != want {
		t.Errorf("%d connections were refused, want %d", refused.Load(), want)
	}
	closed := make(chan struct{}, 1)
	h.conn.SetClosedHandler(func(*nats.Conn) { closed <- struct{}{} })
	for i := range 10000 {
		if _, err := h.conn.SubscribeSync(fmt.Sprintf("%s.in.x%d", evil, i)); err != nil {
			break
		}
	}
	select {
	case err := <-h.errs:
		if !strings.Contains(err.Error(), "maximum subscriptions exceeded") {
			t.Errorf("too many subscriptions: %v", err)
		}
	case <-closed:
	case <-time.After(patience):
		t.Error("any number of subscriptions is taken")
	}
	h.unharmed()
}

// What is no protocol, or too much of it, ends that connection only.
func TestHostileBytes(t *testing.T) {
	h := newHostile(t)
	address := strings.TrimPrefix(h.leaf.ClientURL(), "nats://")
	for name, send := range map[string]string{
		"endless line":           "PUB " + strings.Repeat("x", 4*maxControlLine),
		"no protocol":            "GET / HTTP/1.1\r\n\r\n",
		"binary":                 "\x00\xff\x16\x03\x01\r\n",
		"before connect":         "PUB " + victim + ".in.x 1\r\nx\r\nPING\r\n",
		"subscribe before":       "SUB > 1\r\nPING\r\n",
		"huge size":              "CONNECT {}\r\nPUB a 99999999999\r\n",
		"deep json":              "CONNECT " + strings.Repeat("[", 900) + "\r\n",
		"leafnode":               "CONNECT {\"lang\":\"nkey\",\"hub\":true}\r\nLS+ >\r\n",
		"route":                  "RS+ LOCAL >\r\n",
		"connect to the account": `CONNECT {"account":"$SYS","new_account":true}` + "\r\n",
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(send)); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		lines := bufio.NewReader(conn)
		for err == nil {
			_, err = lines.ReadString('\n')
		}
		if netErr := net.Error(nil); errors.As(err, &netErr) && netErr.Timeout() {
			t.Errorf("%s: the connection stays open", name)
		}
		conn.Close()
	}
	if subjects := h.seen(); len(subjects) != 0 {
		t.Errorf("messages %v", subjects)
	}
	h.unharmed()
}

func TestHostilePayload(t *testing.T) {
	h := newHostile(t)
	if got := h.conn.MaxPayload(); got != maxPayload {
		t.Errorf("maximal payload is %d", got)
	}
	body := make([]byte, maxPayload)
	a, err := report(t, h.conn, "evil", string(body))
	var e *twin.Error
	if !errors.As(err, &e) || e.Code != twin.CodeTooLarge {
		t.Errorf("answer %+v, error %v", a, err)
	}
	h.unharmed()
}

// The requests of a module get their answers while another floods its own twin.
func TestHostileFlood(t *testing.T) {
	h := newHostile(t)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; !stop.Load(); i++ {
			_ = h.conn.PublishRequest(evil+".twin.reported", twin.Inbox("d1", "evil")+".r", fmt.Appendf(nil, `{"a":%d}`, i))
		}
	}()
	conn := h.module(h.leaf, "victim")
	for i := range 20 {
		if _, err := report(t, conn, "victim", fmt.Sprintf(`{"i":%d}`, i)); err != nil {
			t.Errorf("update %d: %v", i, err)
		}
	}
	stop.Store(true)
	<-done
	h.unharmed()
}

// stalled is a connection that stops reading when told.
type stalled struct {
	net.Conn
	stop *atomic.Bool
	end  chan struct{}
}

func (s stalled) Read(b []byte) (int, error) {
	if s.stop.Load() {
		<-s.end
	}
	return s.Conn.Read(b)
}

type stalledDialer struct{ conn stalled }

func (d *stalledDialer) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	d.conn.Conn = conn
	return d.conn, err
}

// A module that does not read what it asked for is cut off, alone.
func TestModuleThatDoesNotRead(t *testing.T) {
	h := newHostile(t)
	d := &stalledDialer{stalled{stop: new(atomic.Bool), end: make(chan struct{})}}
	slow := h.module(h.leaf, "evil", nats.SetCustomDialer(d), nats.NoReconnect())
	if _, err := slow.Subscribe(evil+".in.>", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := slow.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(d.conn.end) })
	d.conn.stop.Store(true)
	body := make([]byte, 512<<10)
	before := h.leaf.server.running().NumSlowConsumers()
	eventually(t, "the module that does not read is cut off", func() bool {
		if err := h.spying.Publish(evil+".in.x", body); err != nil {
			t.Fatal(err)
		}
		_ = h.spying.Flush()
		return h.leaf.server.running().NumSlowConsumers() > before
	})
	h.unharmed()
	if !h.spying.IsConnected() {
		t.Error("the agent lost its own connection")
	}
}
