package leaf

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
)

// wire is a connection on which a test speaks the protocol itself.
type wire struct {
	t     *testing.T
	conn  net.Conn
	lines *bufio.Reader
	nonce string // of the server's challenge
}

func (h *hostile) wire() *wire {
	h.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.leaf.ClientURL(), "nats://"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	w := &wire{t: h.t.(*testing.T), conn: conn, lines: bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(patience))
	info, err := w.lines.ReadString('\n')
	var challenge struct {
		Nonce string `json:"nonce"`
	}
	if err != nil || json.Unmarshal([]byte(strings.TrimPrefix(info, "INFO ")), &challenge) != nil || challenge.Nonce == "" {
		h.t.Fatalf("the server says %q, %v", info, err)
	}
	w.nonce = challenge.Nonce
	return w
}

// answered are the fields of a CONNECT with the answer to the challenge.
func (w *wire) answered(key nkeys.KeyPair) map[string]any {
	w.t.Helper()
	public, err := key.PublicKey()
	if err != nil {
		w.t.Fatal(err)
	}
	sig, err := key.Sign([]byte(w.nonce))
	if err != nil {
		w.t.Fatal(err)
	}
	return map[string]any{"nkey": public, "sig": base64.RawURLEncoding.EncodeToString(sig), "headers": true, "no_responders": true, "protocol": 1}
}

// connects sends CONNECT with these fields and reports whether the server takes it.
func (w *wire) connects(fields map[string]any) bool {
	w.t.Helper()
	line, err := json.Marshal(fields)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.says("CONNECT "+string(line)+"\r\nPING\r\n", "PONG")
}

// says sends bytes and reports whether a line that starts with want is answered,
// with no error before it.
func (w *wire) says(send, want string) bool {
	w.t.Helper()
	if _, err := w.conn.Write([]byte(send)); err != nil {
		return false
	}
	for refused := false; ; {
		line, err := w.lines.ReadString('\n')
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			w.t.Fatalf("%.60q is not answered, and the connection stays open", send)
		}
		refused = refused || strings.HasPrefix(line, "-ERR")
		if err != nil || strings.HasPrefix(line, want) {
			return err == nil && !refused
		}
	}
}

func (h *hostile) key(module string) nkeys.KeyPair {
	h.t.Helper()
	key, err := identity.ReadSeed(h.seedFile(module))
	if err != nil {
		h.t.Fatal(err)
	}
	return key
}

// TestHostileHandshakes: the port speaks to clients only. Every other protocol of
// the server, what is to look like another origin, and a name in the place of a key
// end the connection.
func TestHostileHandshakes(t *testing.T) {
	h := newHostile(t)
	h.conn.Close() // its connections are counted
	evilKey, victimKey := h.key("evil"), h.key("victim")
	public, _ := victimKey.PublicKey()
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	accountKey, _ := account.PublicKey()
	with := func(w *wire, more map[string]any) map[string]any {
		fields := w.answered(evilKey)
		maps.Copy(fields, more)
		return fields
	}
	old := h.wire()
	replayed := old.answered(victimKey)
	if !old.connects(replayed) {
		t.Fatal("the victim is not admitted")
	}
	for name, fields := range map[string]func(w *wire) map[string]any{
		"replayed answer":        func(*wire) map[string]any { return replayed },
		"another's key":          func(w *wire) map[string]any { return with(w, map[string]any{"nkey": public}) },
		"answer to no challenge": func(w *wire) map[string]any { w.nonce = ""; return w.answered(victimKey) },
		"account's key":          func(w *wire) map[string]any { return with(w, map[string]any{"nkey": accountKey}) },
		"jwt": func(*wire) map[string]any {
			return map[string]any{"jwt": "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.e30."}
		},
		"jwt beside another's key":  func(w *wire) map[string]any { return with(w, map[string]any{"nkey": public, "jwt": "a.b.c"}) },
		"system account's user":     func(*wire) map[string]any { return map[string]any{"user": "sys", "pass": "pass"} },
		"system account":            func(*wire) map[string]any { return map[string]any{"user": "$SYS", "pass": ""} },
		"admin":                     func(*wire) map[string]any { return map[string]any{"user": "admin", "pass": "admin"} },
		"agent's name":              func(*wire) map[string]any { return map[string]any{"user": "agent"} },
		"key as a name":             func(*wire) map[string]any { return map[string]any{"user": public} },
		"key as a token":            func(*wire) map[string]any { return map[string]any{"auth_token": public} },
		"key as a token in a name":  func(*wire) map[string]any { return map[string]any{"user": public, "auth_token": public, "nkey": ""} },
		"account of choice":         func(w *wire) map[string]any { return with(w, map[string]any{"account": "$SYS"}) },
		"new account":               func(w *wire) map[string]any { return with(w, map[string]any{"account": "LOCAL", "new_account": true}) },
		"proxy's signature":         func(*wire) map[string]any { return map[string]any{"proxy_sig": "x", "nkey": public} },
		"fields that are no fields": func(*wire) map[string]any { return map[string]any{"nkey": []string{public}, "sig": 7} },
	} {
		if w := h.wire(); w.connects(fields(w)) {
			t.Errorf("%s: admitted", name)
		}
	}
	mqtt := "\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04evil"
	for name, send := range map[string]string{
		"leafnode's connect":   `CONNECT {"nkey":"` + public + `","sig":"x","jwt":"","cluster":"d1","hub":true,"remote_account":"UPLINK"}` + "\r\nLS+ >\r\nPING\r\n",
		"leafnode's message":   "LMSG " + victim + ".in.x 1\r\nx\r\n",
		"route's connect":      `INFO {"server_id":"x","cluster":"c","proto":1}` + "\r\nRS+ LOCAL >\r\n",
		"route's message":      "RMSG LOCAL " + victim + ".in.x 1\r\nx\r\n",
		"route's account":      "A+ LOCAL\r\n",
		"gateway":              `CONNECT {"gateway":"g"}` + "\r\nRMSG LOCAL a 1\r\nx\r\n",
		"websocket":            "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
		"leafnode's websocket": "GET /leafnode HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
		"monitoring":           "GET /connz HTTP/1.0\r\n\r\n",
		"mqtt":                 mqtt,
		"tls":                  "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + strings.Repeat("\x00", 160),
		"proxy, as text":       "PROXY TCP4 127.0.0.1 127.0.0.1 1 4222\r\nPING\r\n",
		"proxy, as bytes":      "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x10\x7e",
		"info of a server":     `INFO {"server_id":"x","nonce":"x"}` + "\r\nPING\r\n",
		"err of a server":      "-ERR 'x'\r\nPING\r\n",
		"message of a server":  "MSG " + victim + ".in.x 1 1\r\nx\r\n",
	} {
		if w := h.wire(); w.says(send, "PONG") {
			t.Errorf("%s: answered", name)
		}
	}
	h.conn = h.module(h.leaf, "evil")
	if subjects := h.seen(); len(subjects) != 0 {
		t.Errorf("messages %v", subjects)
	}
	h.unharmed()
}

// TestSecondConnect: who is admitted stays what it is, whatever it says next.
func TestSecondConnect(t *testing.T) {
	h := newHostile(t)
	evilKey, victimKey := h.key("evil"), h.key("victim")
	victimPublic, _ := victimKey.PublicKey()
	connected := func() (all int) {
		for _, n := range h.leaf.admission.Connections("evil") {
			all += n
		}
		return all
	}
	admitted := func() *wire {
		w := h.wire()
		if !w.connects(w.answered(evilKey)) {
			t.Fatal("a module is not admitted")
		}
		return w
	}
	for name, fields := range map[string]map[string]any{
		"nothing":          {},
		"another's key":    {"nkey": victimPublic},
		"no key":           {"nkey": "", "sig": ""},
		"a name":           {"user": "agent", "pass": ""},
		"the system":       {"user": "sys", "account": "$SYS"},
		"an account":       {"account": "UPLINK"},
		"a hub":            {"hub": true, "cluster": "c", "remote_account": "LOCAL", "lang": "leaf"},
		"other rules":      {"pedantic": true, "verbose": true, "echo": false, "headers": false, "no_responders": false},
		"a token":          {"auth_token": victimPublic},
		"null":             nil,
		"a larger payload": {"max_payload": 1 << 30},
	} {
		w := admitted()
		w.connects(fields) // taken again as itself, or the end
		for _, subject := range []string{victim + ".in.x", victim + ".twin.reported", "$JS.API.INFO", "$SYS.REQ.SERVER.PING", "devices.d1.rpc.status"} {
			if w.says("PUB "+subject+" 2\r\n{}\r\nPING\r\n", "PONG") {
				t.Errorf("%s: may publish to %s", name, subject)
			}
			if w.says("SUB "+subject+" 9\r\nPING\r\n", "PONG") {
				t.Errorf("%s: may subscribe to %s", name, subject)
			}
		}
		w.conn.Close()
	}
	eventually(t, "its connections are forgotten", func() bool { return connected() == 1 })
	// However often it says the same, it is one connection.
	w := admitted()
	for range 100 {
		if !w.connects(w.answered(evilKey)) {
			t.Fatal("who says CONNECT again is cut off")
		}
	}
	if n := connected(); n != 2 {
		t.Errorf("two connections count as %d", n)
	}
	if subjects := h.seen(); len(subjects) != 0 {
		t.Errorf("messages %v", subjects)
	}
	h.unharmed()
}

// TestHostileLines: what an admitted module may send, in forms that are not meant.
func TestHostileLines(t *testing.T) {
	h := newHostile(t)
	key := h.key("evil")
	own := h.wire()
	if !own.connects(own.answered(key)) || !own.says("PUB "+evil+".out.x 1\r\nx\r\nSUB "+evil+".in.> 1\r\nPING\r\n", "PONG") {
		t.Fatal("what it may is refused")
	}
	heard, err := h.module(h.leaf, "victim").SubscribeSync("devices.d1.modules.victim.in.>")
	if err != nil {
		t.Fatal(err)
	}
	for name, send := range map[string]string{
		"line at its bound":         "PUB " + evil + ".out." + strings.Repeat("x", maxControlLine) + " 1\r\nx\r\n",
		"many arguments":            "PUB " + evil + ".out.x " + strings.Repeat("a ", 400) + "1\r\nx\r\n",
		"negative size":             "PUB " + evil + ".out.x -1\r\nx\r\n",
		"size that wraps":           "PUB " + evil + ".out.x 18446744073709551617\r\nx\r\n",
		"size beyond the bound":     fmt.Sprintf("PUB %s.out.x %d\r\n", evil, maxPayload+1),
		"headers beyond the whole":  "HPUB " + evil + ".out.x 100 10\r\nNATS/1.0\r\n\r\n",
		"headers beyond the bound":  fmt.Sprintf("HPUB %s.out.x %d %d\r\n", evil, maxPayload+1, maxPayload+2),
		"message behind a message":  "PUB " + evil + ".out.x 1\r\nxPUB " + victim + ".in.x 1\r\nx\r\n",
		"subject with a line's end": "PUB " + victim + ".in\r.x 1\r\nx\r\n",
		"subject with a tab":        "PUB\t" + victim + ".in.x\t1\r\nx\r\n",
		"subject with a zero":       "PUB " + victim + "\x00.in.x 1\r\nx\r\n",
		"empty tokens":              "PUB " + victim + "..in.x 1\r\nx\r\n",
		"wildcards":                 "PUB devices.d1.modules.*.in.x 1\r\nx\r\n",
		"subscription with a name":  "SUB " + victim + ".in.x workers 1\r\n",
		"queue of everything":       "SUB > > 1\r\n",
		"one mapped for JetStream":  "PUB $JS.d1.API.STREAM.DELETE.S 2\r\n{}\r\n",
		"import of a service":       "SUB _R_.> 1\r\n",
		"flow control":              "PUB $JS.FC.S.c.x 0\r\n\r\n",
		"who am I":                  "PUB $SYS.REQ.USER.INFO " + twin.Inbox("d1", "evil") + ".r 0\r\n\r\n",
		"end of the server":         "PUB $SYS.REQ.SERVER.x.RELOAD 0\r\n\r\n",
		"cut of a client":           "PUB $SYS.REQ.SERVER.x.KICK 9\r\n{\"cid\":1}\r\n",
		"loop of leafnodes":         "PUB $LDS.x 0\r\n\r\n",
		"mqtt's sessions":           "PUB $MQTT.sess.x 0\r\n\r\n",
	} {
		w := h.wire()
		if !w.connects(w.answered(key)) {
			t.Fatal("a module is not admitted")
		}
		if w.says(send+"PING\r\n", "PONG") {
			t.Errorf("%s: taken", name)
		}
		w.conn.Close()
	}
	if m, err := heard.NextMsg(10 * time.Millisecond); err == nil {
		t.Errorf("the victim heard %s", m.Subject)
	}
	h.unharmed()
}

// TestNobodyAnswersNobodyHears: a request that nobody takes is answered by the
// server; not at the subject of somebody else.
func TestNobodyAnswersNobodyHears(t *testing.T) {
	h := newHostile(t)
	if err := h.spy.Unsubscribe(); err != nil { // it would take them
		t.Fatal(err)
	}
	honest := h.module(h.leaf, "victim")
	heard := make(chan string, 16)
	subjects := []string{victim + ".in.x", victim + ".rpc.x", victim + ".twin.desired", twin.Inbox("d1", "victim") + ".x"}
	for _, subject := range subjects {
		if _, err := honest.Subscribe(subject, func(m *nats.Msg) { heard <- m.Subject }); err != nil {
			t.Fatal(err)
		}
	}
	agents, err := h.spying.SubscribeSync("_INBOX.d1.>")
	if err != nil || h.spying.Flush() != nil || honest.Flush() != nil {
		t.Fatal(err)
	}
	for _, reply := range append(subjects, "_INBOX.d1.x") {
		for range 3 {
			if err := h.conn.PublishRequest(evil+".out.nobody", reply, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if h.conn.Flush() != nil || honest.Flush() != nil || h.spying.Flush() != nil {
		t.Fatal("no connection")
	}
	if n, _, _ := agents.Pending(); n != 0 || len(heard) != 0 {
		t.Errorf("the agent heard %d, the victim %d", n, len(heard))
	}
	h.unharmed()
}

// TestAnswersCannotBeForeseen: a module that may answer to the agent's inboxes, as
// one that hears subjects of others does, learns nothing from what it is asked of
// where others' answers go, JetStream's among them.
func TestAnswersCannotBeForeseen(t *testing.T) {
	h := newHostile(t)
	h.leaf.Close()
	h.config.Grants = schema.Grants{Subscribe: []string{"plant.>"}}
	h.leaf = h.open()
	h.declare(h.leaf, allowed("evil", schema.Allow{Subscribe: []string{"plant.>"}}, "victim"))
	conn := h.module(h.leaf, "evil")
	var inboxes []string
	asked := make(chan string, 8)
	if _, err := conn.Subscribe(evil+".rpc.x", func(m *nats.Msg) { asked <- m.Reply; _ = m.Respond(nil) }); err != nil || conn.Flush() != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 4 {
		if err := h.leaf.Probe(ctx, "evil", "x"); err != nil {
			t.Fatal(err)
		}
		inboxes = append(inboxes, <-asked)
	}
	for i, inbox := range inboxes {
		tail, ok := strings.CutPrefix(inbox, "_INBOX.d1.")
		if !ok || len(tail) < 26 || strings.Contains(tail, ".") {
			t.Errorf("asked at %s", inbox)
		}
		for _, other := range inboxes[:i] {
			if strings.HasPrefix(other, inbox[:len("_INBOX.d1.")+6]) {
				t.Errorf("asked at %s and at %s", other, inbox)
			}
		}
	}
}
