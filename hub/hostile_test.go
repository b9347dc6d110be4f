package hub

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// taken is a hub with two devices: a, which was taken over, and b, which was not.
type taken struct {
	*cloud
	a, b     nkeys.KeyPair
	operator *nats.Conn
	leaked   sync.Map // what a was told of b
}

func newTaken(t *testing.T) *taken {
	t.Helper()
	a, publicA := newKey(t)
	b, publicB := newKey(t)
	c := newCloud(t, schema.Entry{Name: "a", Identity: publicA}, schema.Entry{Name: "b", Identity: publicB})
	return &taken{cloud: c, a: a, b: b, operator: c.operator()}
}

// client logs in as a device on the port for clients, without a server of its own.
func (h *taken) client(key nkeys.KeyPair, device string, violation func(error)) *nats.Conn {
	h.t.Helper()
	nc, err := login(h.hub.ClientURL(), key, nats.CustomInboxPrefix(twin.Inbox(device, "")),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { violation(err) }))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(nc.Close)
	return nc
}

// wire speaks the leafnode protocol by hand, as a server that was made to do harm:
// it holds back nothing of what it may not do.
type wire struct {
	conn net.Conn
	said func(line string) // told each line that the hub sends
	gone chan struct{}     // closed when the hub ends the connection
	pong chan struct{}
}

// dial logs in as a device; asHub claims to be the hub of the two.
func (h *taken) dial(t *testing.T, key nkeys.KeyPair, asHub bool, said func(string)) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", h.hub.LeafAddress())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	in := bufio.NewReaderSize(conn, 1<<16)
	line, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ Nonce string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "INFO ")), &info); err != nil {
		t.Fatal(line, err)
	}
	signature, err := key.Sign([]byte(info.Nonce))
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	login, err := json.Marshal(map[string]any{"nkey": public, "sig": base64.RawURLEncoding.EncodeToString(signature),
		"name": "hostile", "version": "2.15.2", "headers": true, "hub": asHub, "protocol": 1, "compression": "off", "domain": "hostile"})
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{conn: conn, said: said, gone: make(chan struct{}), pong: make(chan struct{}, 100)}
	go w.listen(in)
	w.say("CONNECT %s", login)
	if !w.through() {
		t.Fatal("the device itself is not let in")
	}
	return w
}

func (w *wire) listen(in *bufio.Reader) {
	defer close(w.gone)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch line = strings.TrimSpace(line); line {
		case "PONG":
			w.pong <- struct{}{}
		case "PING":
			w.say("PONG")
		default:
			w.said(line)
		}
	}
}

func (w *wire) say(format string, v ...any) { fmt.Fprintf(w.conn, format+"\r\n", v...) }

// publish sends a message with a reply, and headers where there are any, to plain
// subscriptions and, which a server has to name, to the hub's groups.
func (w *wire) publish(subject, reply, header string, body []byte) {
	groups := queueGroup + " tidemark-services"
	if header == "" {
		w.say("LMSG %s + %s %s %d\r\n%s", subject, reply, groups, len(body), body)
		return
	}
	header = "NATS/1.0\r\n" + header + "\r\n\r\n"
	w.say("HMSG %s + %s %s %d %d\r\n%s%s", subject, reply, groups, len(header), len(header)+len(body), header, body)
}

// through reports whether the hub took what was said, rather than to hang up.
func (w *wire) through() bool {
	w.say("PING")
	select {
	case <-w.pong:
		return true
	case <-w.gone:
		return false
	case <-time.After(20 * time.Second):
		return false
	}
}

// each runs a test against every way in, with a function that does one thing there
// and reports whether it was taken.
func (h *taken) each(t *testing.T, f func(t *testing.T, do func(func(speaker)) bool)) {
	t.Run("client", func(t *testing.T) {
		nc := h.client(h.a, "a", func(error) {})
		f(t, func(one func(speaker)) bool { one(clientSpeaker{nc, h.leak}); return nc.Flush() == nil })
	})
	for _, asHub := range []bool{false, true} {
		t.Run(fmt.Sprintf("leaf, hub=%v", asHub), func(t *testing.T) {
			f(t, func(one func(speaker)) bool {
				w := h.dial(t, h.a, asHub, h.leak)
				one(leafSpeaker{w})
				return w.through()
			})
		})
	}
}

// speaker is what a device can do, one way or the other.
type speaker interface {
	publish(subject, reply, header string, body []byte)
	subscribe(subject, group string)
}

type leafSpeaker struct{ *wire }

func (l leafSpeaker) subscribe(subject, group string) {
	if group == "" {
		l.say("LS+ %s", subject)
		return
	}
	l.say("LS+ %s %s 1", subject, group)
}

type clientSpeaker struct {
	nc   *nats.Conn
	said func(string)
}

func (c clientSpeaker) publish(subject, reply, header string, body []byte) {
	m := &nats.Msg{Subject: subject, Reply: reply, Data: body}
	if header != "" {
		m.Header = nats.Header{}
		for _, line := range strings.Split(header, "\r\n") {
			key, value, _ := strings.Cut(line, ": ")
			m.Header[key] = []string{value}
		}
	}
	_ = c.nc.PublishMsg(m)
}

func (c clientSpeaker) subscribe(subject, group string) {
	listen := func(m *nats.Msg) { c.said(m.Subject + " " + string(m.Data)) }
	if group == "" {
		_, _ = c.nc.Subscribe(subject, listen)
	} else {
		_, _ = c.nc.QueueSubscribe(subject, group, listen)
	}
}

// leak fails the test where a is told anything of b: a message, or a subject.
func (h *taken) leak(line string) {
	if strings.HasPrefix(line, "-ERR") {
		return // says what it did
	}
	if strings.Contains(line, "secret of b") || strings.Contains(line, ".b.") || strings.Contains(line, ".b ") {
		h.leaked.Store(line, true)
	}
}

// tight fails the test where something came that should not.
func tight(t *testing.T, what string, heard *sync.Map) {
	t.Helper()
	heard.Range(func(key, value any) bool { t.Errorf("%s: %v %v", what, key, value); return true })
}

// spies has an operator listen where nothing may come.
func (h *taken) spies(t *testing.T, subjects ...string) *sync.Map {
	t.Helper()
	heard := &sync.Map{}
	for _, subject := range subjects {
		if strings.HasPrefix(subject, "$JS.API") || strings.HasPrefix(subject, "$JS.hub") || strings.HasPrefix(subject, "$SYS") || strings.HasSuffix(subject, ".") {
			continue // nobody listens there but the server
		}
		if _, err := h.operator.Subscribe(subject, func(m *nats.Msg) {
			if m.Subject != twin.FleetMoved || !strings.HasPrefix(string(m.Data), `{"commit":`) { // the hub's own
				heard.Store(m.Subject, string(m.Data))
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.operator.Flush(); err != nil {
		t.Fatal(err)
	}
	return heard
}

// forbidden is what a device may not publish to.
var forbidden = []string{
	"up.b.messages", "up.b.twin", "up.b.call.m.weather", "up.b.answer.x", "up.b", "up", "up.a", "up.a.messages.x", "up.a.twin.x", "up.a.call", "up.a.other",
	"messages.a.default.out.m.n", "messages.b.default.out.m.n", "messages.b.default.lost", "messages.x",
	"devices.a.rpc.ping", "devices.b.rpc.ping", "devices.b.modules.m.rpc.x", "devices.b.twin.get", "fleet.moved", "fleet.x",
	"$JS.API.INFO", "$JS.API.STREAM.MSG.GET.MESSAGES", "$JS.API.DIRECT.GET.MESSAGES", "$JS.API.DIRECT.GET.MESSAGES.messages.b.default.out.m.n",
	"$JS.API.STREAM.DELETE.MESSAGES", "$JS.API.STREAM.PURGE.MESSAGES", "$JS.API.STREAM.DELETE.KV_twins", "$JS.API.CONSUMER.CREATE.MESSAGES", "$JS.hub.API.STREAM.DELETE.MESSAGES",
	"$KV.twins.devices.b", "$KV.twins.devices.a", "$O.x", "$SYS.REQ.SERVER.PING", "$SYS.ACCOUNT.$G.CONNECT", "$SRV.PING", "_INBOX.b.x", "_INBOX.x", "_INBOX.a.x", "x",
}

// TestDeviceMayPublishNothingElse: what a device sends elsewhere comes nowhere, and
// changes nothing.
func TestDeviceMayPublishNothingElse(t *testing.T) {
	h := newTaken(t)
	if _, err := Serve(h.operator, "weather", echo); err != nil {
		t.Fatal(err)
	}
	h.bWorks(t)
	heard := h.spies(t, forbidden...)
	h.each(t, func(t *testing.T, do func(func(speaker)) bool) {
		for _, subject := range forbidden {
			do(func(s speaker) { s.publish(subject, "_INBOX.a.x", "", []byte(`{"secret of a":1}`)) })
		}
	})
	h.settled(t)
	tight(t, "got through", heard)
	tight(t, "a learns", &h.leaked)
	if got := h.came("", ""); len(got) != rounds {
		t.Errorf("%d messages are stored", len(got))
	}
	if d, err := h.hub.Twins().List(testContext(t), ""); err != nil || len(d) != 1 {
		t.Error(d, err)
	}
}

// settled waits until what a sent before has had its effect, if it has any.
func (h *taken) settled(t *testing.T) {
	t.Helper()
	a := h.client(h.a, "a", func(err error) { t.Error(err) })
	for range 3 {
		if _, err := hand(t, a, "a", twin.Batch{Lane: "default"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.operator.Flush(); err != nil {
		t.Fatal(err)
	}
}

// overheard is what a device may not subscribe to.
var overheard = []string{
	">", "*", "*.>", "*.*.>", "up.>", "up.*.messages", "up.b.>", "up.b.messages", "up.b.twin", "up.a.>", "messages.>", "messages.b.>", "devices.>", "devices.b.>", "devices.b.rpc.>", "devices.*.rpc.x",
	"devices.b.modules.*.rpc.*", "devices.*.modules.*.rpc.*", "fleet.other", "_INBOX.>", "_INBOX.*", "_INBOX.*.>", "_INBOX.b.>", "_INBOX.b.*", "$JS.>", "$JS.API.>", "$JS.EVENT.>", "$JS.ACK.>", "$KV.>", "$KV.twins.>", "$SYS.>", "$SRV.>", "_R_.>", "_GR_.>",
}

// TestDeviceHearsNothingElse: b works, people work, and a has subscribed to
// everything that it could think of, also as if it were one of the hub's own, to
// take what devices send.
func TestDeviceHearsNothingElse(t *testing.T) {
	h := newTaken(t)
	if _, err := Serve(h.operator, "weather", echo); err != nil {
		t.Fatal(err)
	}
	h.each(t, func(t *testing.T, do func(func(speaker)) bool) {
		for _, subject := range overheard {
			for _, group := range []string{"", queueGroup, "tidemark-services"} {
				do(func(s speaker) { s.subscribe(subject, group) })
			}
		}
		h.bWorks(t)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := Call(ctx, h.operator, Method{Device: "c", Name: "ping"}, nil); code(err) != twin.CodeOffline {
			t.Errorf("a call of a device that is not linked: %v", err)
		}
	})
	h.settled(t)
	tight(t, "a hears", &h.leaked)
}

// rounds is how often bWorks has b do everything.
const rounds = 10

// bWorks has b do all that a device does, again and again, and each succeed.
func (h *taken) bWorks(t *testing.T) {
	t.Helper()
	b := h.client(h.b, "b", func(err error) { t.Error(err) })
	if _, err := b.Subscribe("devices.b.modules.m.rpc.get", func(m *nats.Msg) { _ = m.Respond([]byte("secret of b")) }); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	for range rounds {
		s, err := hand(t, b, "b", twin.Batch{Lane: "default"})
		if err != nil {
			t.Fatal(err)
		}
		next := batchOf(s.Position, s.Seq+1, s.Seq+1)
		next.Items[0].Body = []byte("secret of b")
		stands(t, b, "b", next, at(s.Seq+1))
		send(t, b, document("b", "m", s.Seq+1, 1, "secret of b"))
		if m, err := b.Request(twin.UpCall("b", "m", "weather"), []byte("secret of b"), 20*time.Second); err != nil || string(m.Data) != "secret of b" {
			t.Fatal(m, err)
		}
		if answer, err := Call(testContext(t), h.operator, Method{Device: "b", Module: "m", Name: "get"}, []byte("secret of b")); err != nil || string(answer) != "secret of b" {
			t.Fatalf("%s, %v", answer, err)
		}
	}
}

// TestAnswersAreNotReflected: a device that names another's subject as the reply,
// or one that reaches a stream, has nobody speak there in the hub's name.
func TestAnswersAreNotReflected(t *testing.T) {
	h := newTaken(t)
	if _, err := Serve(h.operator, "weather", echo); err != nil {
		t.Fatal(err)
	}
	replies := []string{
		"_INBOX.b.x", "_INBOX.a", "_INBOX.a.", "_INBOX.ab.x", "_INBOX.x", "devices.b.rpc.stop", "devices.b.modules.m.rpc.x", "fleet.moved", "up.b.messages", "up.b.twin",
		"messages.b.default.out.m.n", "$KV.twins.devices.b", "$JS.API.STREAM.DELETE.MESSAGES", "$JS.API.STREAM.PURGE.MESSAGES", "_INBOX.a." + strings.Repeat("x", maxReply),
	}
	heard := h.spies(t, replies...)
	h.each(t, func(t *testing.T, do func(func(speaker)) bool) {
		do(func(s speaker) {
			for _, subject := range []string{"up.a.messages", "up.a.twin", "up.a.call.m.weather"} {
				for _, reply := range replies {
					for _, body := range []string{"", "{}", string(batchOf(at(0), 1, 0).Encode())} {
						s.publish(subject, reply, "", []byte(body))
					}
				}
			}
		})
	})
	h.settled(t)
	tight(t, "got through", heard)
}

// TestHeadersSteerNothing: headers that NATS servers act upon, in requests and in
// messages.
func TestHeadersSteerNothing(t *testing.T) {
	h := newTaken(t)
	b := h.client(h.b, "b", func(err error) { t.Error(err) })
	stands(t, b, "b", batchOf(at(0), 1, 3), at(3))
	heard := h.spies(t, "up.b.twin", "_INBOX.b.x", "fleet.moved", "devices.b.rpc.x", "$KV.twins.devices.b")
	h.each(t, func(t *testing.T, do func(func(speaker)) bool) {
		for _, header := range []string{
			"Nats-Trace-Dest: up.b.twin", "Nats-Trace-Dest: _INBOX.b.x\r\nNats-Trace-Only: true", "Nats-Trace-Dest: fleet.moved",
			"Nats-Trace-Dest: devices.b.rpc.x\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Nats-Trace-Dest: $KV.twins.devices.b",
			"Nats-Rollup: all", "Nats-Expected-Last-Sequence: 0", "Nats-Batch-Id: x\r\nNats-Batch-Sequence: 1\r\nNats-Batch-Commit: 1", "KV-Operation: PURGE", "Nats-TTL: 1s",
			"Nats-Schedule: @every 1s\r\nNats-Schedule-Target: up.b.twin", "Tidemark-Epoch: x\r\nTidemark-Seq: 99", "Status: 503",
		} {
			for _, subject := range []string{"up.a.messages", "up.a.twin", "up.a.answer.x"} {
				do(func(s speaker) { s.publish(subject, "_INBOX.a.x", header, twin.Batch{Lane: "default"}.Encode()) })
			}
		}
	})
	h.settled(t)
	tight(t, "got through", heard)
	if got := h.came("b", ""); !slices.Equal(got, numbers(1, 3)) {
		t.Errorf("b's messages are %v", got)
	}
	h.audited("a")
}

// TestFloodDelaysNobody: a asks, and sends the largest there is, as fast as it can,
// has 10,000 subscriptions, and does not read its answers; b goes on.
func TestFloodDelaysNobody(t *testing.T) {
	h := newTaken(t)
	if _, err := Serve(h.operator, "weather", echo); err != nil {
		t.Fatal(err)
	}
	large := batchOf(at(0), 1, 1)
	large.Items[0].Body = make([]byte, twin.MaxBody)
	bodies := [][]byte{large.Encode(), make([]byte, 1<<20), nil, twin.Batch{Lane: "default"}.Encode(), document("a", "m", 1, 1, "x").Encode()}
	h.each(t, func(t *testing.T, do func(func(speaker)) bool) {
		do(func(s speaker) {
			for n := range 10_000 {
				s.subscribe(fmt.Sprintf("_INBOX.a.%d.*", n), "")
			}
			var stop atomic.Bool
			var flood sync.WaitGroup
			flood.Go(func() {
				for n := 0; !stop.Load(); n++ {
					subject := []string{"up.a.messages", "up.a.twin", "up.a.call.m.weather", "up.a.answer.x"}[n%4]
					s.publish(subject, "_INBOX.a.1.x", "", bodies[n%len(bodies)])
				}
			})
			h.bWorks(t)
			stop.Store(true)
			flood.Wait()
		})
	})
	h.audited("a")
	h.audited("b")
}

func echo(_ context.Context, _ Caller, body []byte) ([]byte, error) { return body, nil }

// TestDeviceAcknowledgesForNobody: a acknowledges, refuses and ends what was
// delivered to somebody else, whose subject for it a knows. nats-server 2.15 lets a
// leaf publish there whatever its permissions are.
func TestDeviceAcknowledgesForNobody(t *testing.T) {
	h := newTaken(t)
	b := h.client(h.b, "b", func(err error) { t.Error(err) })
	stands(t, b, "b", batchOf(at(0), 1, 5), at(5))
	js, err := jetstream.New(h.operator)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := js.CreateConsumer(testContext(t), StreamMessages, jetstream.ConsumerConfig{Durable: "theirs", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	got, err := consumer.Fetch(3)
	if err != nil {
		t.Fatal(err)
	}
	var messages []jetstream.Msg
	for m := range got.Messages() {
		messages = append(messages, m)
	}
	if len(messages) != 3 || got.Error() != nil {
		t.Fatal(len(messages), got.Error())
	}
	stand := func(t *testing.T, pending int) {
		t.Helper()
		info, err := consumer.Info(testContext(t))
		if err != nil || info.NumAckPending != pending || info.NumRedelivered != 0 || info.Delivered.Consumer != 3 {
			t.Errorf("%d are to be acknowledged: %+v, %v", pending, info, err)
		}
	}
	h.each(t, func(t *testing.T, do func(func(speaker)) bool) {
		for _, verb := range []string{"", "+ACK", "-NAK", "+TERM", "+NXT", "+WPI"} {
			for _, m := range messages {
				do(func(s speaker) { s.publish(m.Reply(), "_INBOX.a.x", "", []byte(verb)) })
			}
		}
		h.settled(t)
		stand(t, 3)
	})
	if err := messages[0].DoubleAck(testContext(t)); err != nil {
		t.Fatal(err)
	}
	stand(t, 2)
	tight(t, "a learns", &h.leaked)
}
