package leaf

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// hub is a server that admits one device by its NKey, with the permissions that
// a hub gives.
type hub struct {
	*server.Server
	port int
}

func startHub(t *testing.T, device string, port int, open bool, config *tls.Config) *hub {
	t.Helper()
	if port == 0 {
		port = server.RANDOM_PORT
	}
	permissions := &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"up.d1.>"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"fleet.moved", "_INBOX.d1.>", "devices.d1.rpc.>", "devices.d1.modules.*.rpc.*"}},
	}
	if open {
		permissions = nil // a hub that permits everything
	}
	o := &server.Options{
		ServerName: "hub", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		Nkeys: []*server.NkeyUser{{Nkey: device, Permissions: permissions}},
		Users: []*server.User{{Username: "hub", Password: "hub"}},
	}
	o.LeafNode.Host, o.LeafNode.Port, o.LeafNode.NoAdvertise = "127.0.0.1", port, true
	o.LeafNode.AuthTimeout = 10 // as hub has it
	if config != nil {
		o.LeafNode.TLSConfig, o.LeafNode.TLSTimeout = config, 5
	}
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the hub does not start")
	}
	return &hub{s, o.LeafNode.Port}
}

func (h *hub) connect(t *testing.T) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect("", nats.InProcessServer(h), nats.UserInfo("hub", "hub"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func (s *site) linkTo(port int) {
	s.config.Hub = &schema.HubLink{URL: "nats-leaf://127.0.0.1:" + strconv.Itoa(port)}
}

func waitLinked(t *testing.T, l *Leaf, want bool) {
	t.Helper()
	eventually(t, "link is up: "+strconv.FormatBool(want), func() bool { up, _ := l.Linked(); return up == want })
}

func deviceIdentity(t *testing.T, s *site) string {
	t.Helper()
	public, err := DeviceIdentity(s.config.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// ask repeats a request until the link carries it.
func ask(t *testing.T, conn *nats.Conn, subject string) string {
	t.Helper()
	var answer string
	eventually(t, "an answer on "+subject, func() bool {
		m, err := conn.Request(subject, []byte("?"), time.Second)
		if err == nil {
			answer = string(m.Data)
		}
		return err == nil
	})
	return answer
}

func TestHubLink(t *testing.T) {
	s := newSite(t)
	public := deviceIdentity(t, s)
	h := startHub(t, public, 0, false, nil)
	s.linkTo(h.port)
	l := s.open()
	if deviceIdentity(t, s) != public {
		t.Error("the identity changed")
	}
	states := make(chan bool, 16)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go l.WatchLink(ctx, func(up bool) { states <- up })
	waitLinked(t, l, true)
	if err := l.Handle("ping", func(context.Context, []byte) ([]byte, error) { return []byte("pong"), nil }); err != nil {
		t.Fatal(err)
	}
	inside, err := l.ConnectHub("test")
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	moved, err := inside.SubscribeSync(twin.FleetMoved)
	if err != nil {
		t.Fatal(err)
	}
	work := func(h *hub) {
		t.Helper()
		conn := h.connect(t)
		if _, err := conn.Subscribe("up.d1.resume", func(m *nats.Msg) { _ = m.Respond([]byte("from the hub")) }); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, inside, "up.d1.resume"); got != "from the hub" {
			t.Errorf("answer of the hub: %q", got)
		}
		answers, err := conn.SubscribeSync("up.d1.answer.>")
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the device answers", func() bool {
			_ = conn.PublishRequest("devices.d1.rpc.ping", "up.d1.answer.1", nil)
			m, err := answers.NextMsg(100 * time.Millisecond)
			return err == nil && string(m.Data) == "pong"
		})
		eventually(t, "the hub's news arrive", func() bool {
			_ = conn.Publish(twin.FleetMoved, nil)
			_, err := moved.NextMsg(100 * time.Millisecond)
			return err == nil
		})
	}
	work(h)
	h.Shutdown()
	h.WaitForShutdown()
	waitLinked(t, l, false)
	if _, err := inside.Request("up.d1.resume", nil, time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("with no hub a request says %v", err)
	}
	h = startHub(t, public, h.port, false, nil)
	waitLinked(t, l, true)
	work(h)
	var seen []bool
	for len(seen) < 3 || !seen[len(seen)-1] {
		seen = append(seen, <-states)
	}
	if seen[0] { // it may have been up when it was first asked for
		seen = slices.Insert(seen, 0, false)
	}
	if !slices.Equal(seen, []bool{false, true, false, true}) {
		t.Errorf("the link was told as %v", seen)
	}
}

func TestHubMayBeDownAtStart(t *testing.T) {
	s := newSite(t)
	h := startHub(t, deviceIdentity(t, s), 0, false, nil)
	port := h.port
	h.Shutdown()
	h.WaitForShutdown()
	s.linkTo(port)
	l := s.open()
	if up, _ := l.Linked(); up {
		t.Error("linked to nobody")
	}
	s.declare(l, declared("sensor"))
	if _, err := report(t, s.module(l, "sensor"), "sensor", `{"a":1}`); err != nil {
		t.Error(err)
	}
	startHub(t, deviceIdentity(t, s), port, false, nil)
	waitLinked(t, l, true)
}

func TestHubThatDoesNotKnowTheDevice(t *testing.T) {
	s := newSite(t)
	other := newSite(t)
	h := startHub(t, deviceIdentity(t, other), 0, false, nil)
	s.linkTo(h.port)
	l := s.open()
	eventually(t, "a person is told", func() bool { return strings.Contains(s.warned(), "does not admit this device's key") })
	if up, _ := l.Linked(); up {
		t.Error("linked all the same")
	}
}

// Whatever the hub permits, nothing of the modules crosses the link, and no
// module gets or gives anything there.
func TestModuleTrafficStaysOnTheDevice(t *testing.T) {
	s := newSite(t)
	h := startHub(t, deviceIdentity(t, s), 0, true, nil)
	s.linkTo(h.port)
	l := s.open()
	s.declare(l, declared("sensor"))
	waitLinked(t, l, true)
	conn := h.connect(t)
	all, err := conn.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	module := s.module(l, "sensor")
	in, err := module.SubscribeSync("devices.d1.modules.sensor.in.>")
	if err != nil {
		t.Fatal(err)
	}
	desired, err := module.SubscribeSync("devices.d1.modules.sensor.twin.desired")
	if err != nil {
		t.Fatal(err)
	}
	inside, err := l.ConnectHub("test")
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	// The link works, both ways.
	back, err := inside.SubscribeSync("_INBOX.d1.back")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "messages cross the link", func() bool {
		_ = inside.PublishRequest("up.d1.mark", "_INBOX.d1.back", nil)
		for {
			m, err := all.NextMsg(100 * time.Millisecond)
			if err != nil {
				return false
			}
			if m.Subject == "up.d1.mark" {
				_ = m.Respond(nil)
				_, err = back.NextMsg(time.Second)
				return err == nil
			}
		}
	})
	if _, err := report(t, module, "sensor", `{"a":1}`); err != nil {
		t.Fatal(err)
	}
	if err := module.Publish("devices.d1.modules.sensor.out.x", nil); err != nil {
		t.Fatal(err)
	}
	d := declared("sensor")
	d.Modules[0].Twin.Desired = map[string]any{"interval": 6}
	s.declare(l, d)
	local, err := l.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	js, err := jetstream.New(local)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OUT", Subjects: []string{"stored.>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "stored.x", nil); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"devices.d1.modules.sensor.in.x", "devices.d1.modules.sensor.twin.desired", "devices.d1.modules.sensor.twin.reported", "devices.d1.twin.get", "$JS.API.STREAM.DELETE.OUT", "$JS.d1.API.STREAM.DELETE.OUT", "stored.y"} {
		if err := conn.Publish(subject, []byte(`{"a":"from the hub"}`)); err != nil {
			t.Fatal(err)
		}
	}
	if err := inside.Publish("up.d1.end", nil); err != nil {
		t.Fatal(err)
	}
	ask := func() { // what the hub sent has arrived when this comes back
		if err := conn.Publish("_INBOX.d1.back", []byte("end")); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := back.NextMsg(patience)
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Data) == "end" {
				return
			}
		}
	}
	ask()
	for {
		m, err := all.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject == "up.d1.end" {
			break
		}
		fromHub := string(m.Data) == `{"a":"from the hub"}` // its own, which it subscribes to
		if !fromHub && !strings.HasPrefix(m.Subject, "up.d1.") && !strings.HasPrefix(m.Subject, "_INBOX.d1.") {
			t.Errorf("the hub saw %s", m.Subject)
		}
	}
	if got := get(t, module, "sensor").Properties.Reported; got.Values["a"] != 1.0 {
		t.Errorf("the hub changed the twin: %v", got.Values)
	}
	if n, _, _ := in.Pending(); n != 0 {
		t.Error("the hub reached the module")
	}
	if n, _, _ := desired.Pending(); n != 1 {
		t.Errorf("%d desired came, want the one of the device itself", n)
	}
	if stream, err := js.Stream(t.Context(), "OUT"); err != nil {
		t.Error(err)
	} else if info, err := stream.Info(t.Context()); err != nil || info.State.Msgs != 1 {
		t.Errorf("the stream is %+v, %v", info, err)
	}
	leafz, err := h.Leafz(&server.LeafzOptions{Subscriptions: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range leafz.Leafs {
		for _, subject := range leaf.Subs {
			loop := strings.HasPrefix(subject, "$LDS.") // by which servers see that they are linked in a circle
			if !loop && !strings.HasPrefix(subject, "_INBOX.d1.") && !strings.HasPrefix(subject, "devices.d1.rpc.") && subject != "devices.d1.modules.*.rpc.*" {
				t.Errorf("the hub knows of a subscription to %s", subject)
			}
		}
	}
}

func TestHubWithTLS(t *testing.T) {
	dir := t.TempDir()
	certificate, ca := selfSigned(t, dir, "ca.pem")
	s := newSite(t)
	h := startHub(t, deviceIdentity(t, s), 0, false, &tls.Config{Certificates: []tls.Certificate{certificate}})
	s.config.Hub = &schema.HubLink{URL: "tls://127.0.0.1:" + strconv.Itoa(h.port), CAFile: ca}
	l := s.open()
	waitLinked(t, l, true)
	l.Close()

	_, wrong := selfSigned(t, dir, "wrong.pem")
	s.config.Hub.CAFile = wrong
	l = s.open()
	eventually(t, "a person is told", func() bool { return strings.Contains(s.warned(), "certificate") })
	if up, _ := l.Linked(); up {
		t.Error("linked to a hub that another authority vouches for")
	}
	l.Close()

	plain := startHub(t, deviceIdentity(t, s), 0, false, nil)
	s.config.Hub = &schema.HubLink{URL: "tls://127.0.0.1:" + strconv.Itoa(plain.port), CAFile: ca}
	l = s.open()
	eventually(t, "the device hangs up", func() bool { return strings.Contains(strings.ToLower(s.warned()), "tls") })
	if up, _ := l.Linked(); up {
		t.Error("linked to a hub without TLS")
	}
}

func selfSigned(t *testing.T, dir, name string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

func TestDeviceIdentity(t *testing.T) {
	s := newSite(t)
	public := deviceIdentity(t, s)
	path := filepath.Join(s.config.StateDir, "identity.nk")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("seed file: %v, %v", info.Mode(), err)
	}
	if again := deviceIdentity(t, s); again != public || !strings.HasPrefix(public, "U") {
		t.Errorf("identity is %q, then %q", public, again)
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.linkTo(1)
	s.open() // a device goes on with a broken seed
	if !strings.Contains(s.warned(), "device identity") {
		t.Errorf("a person is told %q", s.warned())
	}
	if kept, _ := filepath.Glob(path + ".broken-*"); len(kept) != 1 {
		t.Errorf("kept: %v", kept)
	}
	if deviceIdentity(t, s) == public {
		t.Error("the seed came back")
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"device":      func(c *Config) { c.Device = "D.1" },
		"no device":   func(c *Config) { c.Device = "" },
		"state":       func(c *Config) { c.StateDir = "state" },
		"run":         func(c *Config) { c.RunDir = "" },
		"host":        func(c *Config) { c.Listen = "192.0.2.1:4222" },
		"port":        func(c *Config) { c.Listen = "127.0.0.1:99999" },
		"listen":      func(c *Config) { c.Listen = "4222" },
		"hub":         func(c *Config) { c.Hub = &schema.HubLink{URL: "http://hub"} },
		"hub's user":  func(c *Config) { c.Hub = &schema.HubLink{URL: "nats-leaf://a:b@hub"} },
		"hub's CA":    func(c *Config) { c.Hub = &schema.HubLink{URL: "tls://hub", CAFile: "/does/not/exist"} },
		"hub's CA, 2": func(c *Config) { c.Hub = &schema.HubLink{URL: "tls://hub", CAFile: "/proc/self/maps"} },
	} {
		s := newSite(t)
		edit(&s.config)
		if l, err := Open(t.Context(), s.config); err == nil {
			l.Close()
			t.Errorf("%s: taken", name)
		} else if !strings.HasPrefix(err.Error(), "open leaf: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := newSite(t)
	s.config.Listen = taken.Addr().String()
	if _, err := Open(t.Context(), s.config); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("port in use: %v", err)
	}
}
