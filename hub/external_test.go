package hub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// elsewhere is a server that somebody else configured, which includes the file that
// a hub writes.
type elsewhere struct {
	server       *server.Server
	client, leaf string // addresses
	seed, users  string // files
	dir          string
}

func newElsewhere(t *testing.T) *elsewhere {
	t.Helper()
	dir := t.TempDir()
	e := &elsewhere{client: harness.FreeAddress(t), leaf: harness.FreeAddress(t), dir: dir,
		seed: filepath.Join(dir, "hub.nk"), users: filepath.Join(dir, "users.conf")}
	key, public := newKey(t)
	raw, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "nats.conf")
	withUsers := strings.Replace(accounts, "HUB {", fmt.Sprintf("HUB {\n    users: [{nkey: %s}]", public), 1)
	withUsers = strings.Replace(withUsers, "FLEET {", "FLEET {\n    include \"users.conf\"", 1)
	for path, data := range map[string]string{
		e.seed:  string(raw) + "\n",
		e.users: string(authorization(nil)),
		conf: fmt.Sprintf(`listen: %q
jetstream { store_dir: %q, max_file: 2Gi, max_mem: 16Mi, sync_interval: always, domain: hub }
leafnodes { listen: %q, no_advertise: true, isolate_leafnode_interest: true }
`, e.client, filepath.Join(dir, "js"), e.leaf) + withUsers,
	} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	options, err := server.ProcessConfigFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	options.NoSigs, options.NoLog = true, true
	if e.server, err = server.NewServer(options); err != nil {
		t.Fatal(err)
	}
	e.server.Start()
	t.Cleanup(func() { e.server.Shutdown(); e.server.WaitForShutdown() })
	if !e.server.ReadyForConnections(30 * time.Second) {
		t.Fatal("server is not ready")
	}
	return e
}

// hub runs a hub at the server.
func (e *elsewhere) hub(t *testing.T, name string, entries ...schema.Entry) *cloud {
	t.Helper()
	c := &cloud{t: t, repo: &repository{commit: 1, entries: entries}}
	c.conf = Config{
		HubConfig: schema.HubConfig{
			StateDir: filepath.Join(e.dir, name), Streams: schema.HubStreamsSpec{MaxBytes: 64 << 20},
			External: &schema.ExternalNATS{URL: "nats://" + e.client, CredsFile: e.seed, AuthorizationFile: e.users},
		},
		Source: c.repo, Devices: c.repo.devices, Warn: func(err error) { t.Log(name, "warns: ", err) },
	}
	c.start()
	t.Cleanup(c.stop)
	return c
}

// connect connects with the rights of a hub.
func (e *elsewhere) connect(t *testing.T, o ...nats.Option) *nats.Conn {
	t.Helper()
	login, err := loginFrom(e.seed)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("nats://"+e.client, append(o, login)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// TestTwoHubsAtOneServer has two hubs answer the same devices, each with a memory
// of its own of where they stand.
func TestTwoHubsAtOneServer(t *testing.T) {
	e := newElsewhere(t)
	one := e.hub(t, "one")
	two := e.hub(t, "two")
	nc := e.connect(t)
	var all sync.WaitGroup
	for d := range 8 {
		all.Go(func() { scatter(t, nc, fmt.Sprintf("d%d", d), 300) })
	}
	all.Wait()
	for d := range 8 {
		device := fmt.Sprintf("d%d", d)
		if got := one.came(device, ""); !slices.Equal(got, numbers(1, 300)) {
			t.Errorf("%s: %d", device, len(got))
		}
		two.audited(device)
	}
	if len(one.hub.intake.lanes.places) == 0 || len(two.hub.intake.lanes.places) == 0 {
		t.Error("one hub answered everything")
	}
}

// TestExternalServer runs a hub on a server that somebody else configured, which
// includes the file that the hub writes.
func TestExternalServer(t *testing.T) {
	e := newElsewhere(t)
	s, client, leaf, users := e.server, e.client, e.leaf, e.users
	g := newGadget(t, "a")
	c := e.hub(t, "state", g.entry())
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	g.proxy = newProxy(t, leaf)
	g.conf.Hub = &schema.HubLink{URL: "nats-leaf://" + g.proxy.address}
	g.link(c)
	g.say(1, 1000)
	g.drained()
	if got := c.bodies("a"); !slices.Equal(got, numbers(1, 1000)) {
		t.Errorf("the hub holds %d", len(got))
	}
	other, intruder := newKey(t)
	c.follow(g.entry(), schema.Entry{Name: "b", Identity: intruder})
	until(t, "the file names b", func() bool {
		data, err := os.ReadFile(users)
		return err == nil && strings.Contains(string(data), intruder)
	})
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	violations := make(chan error, 10)
	nc, err := login("nats://"+client, other, nats.CustomInboxPrefix(twin.Inbox("b", "")),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	stands(t, nc, "b", twin.Batch{Lane: "default"}, at(0))
	if err := nc.Publish(twin.UpMessages("a"), nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-violations:
	case <-time.After(20 * time.Second):
		t.Error("b may publish as a")
	}
}

// TestDocumentedAccounts: whoever configures a server of his own reads in #Hub what
// the embedded one has.
func TestDocumentedAccounts(t *testing.T) {
	cue, err := os.ReadFile("../schema/definitions/hub.cue")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for line := range strings.Lines(string(cue)) {
		line, is := strings.CutPrefix(strings.TrimSpace(line), "//\t")
		if is && !strings.Contains(line, "users:") && !strings.Contains(line, "include") && !strings.Contains(line, "leafnodes") {
			said = append(said, line)
		}
	}
	if got := strings.Join(said, "\n") + "\n"; got != accounts {
		t.Errorf("#Hub says\n%s", got)
	}
}

// TestTLS links a device over TLS, and one that does not trust the certificate.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	selfSigned(t, certFile, keyFile)
	g, stranger := newGadget(t, "a"), newGadget(t, "b")
	c := newCloud(t, g.entry(), stranger.entry())
	c.stop()
	c.conf.TLS = &schema.TLSFiles{CertFile: certFile, KeyFile: keyFile}
	c.start()
	for _, d := range []*gadget{g, stranger} {
		d.proxy = newProxy(t, c.hub.LeafAddress())
		d.conf.Hub = &schema.HubLink{URL: "tls://" + d.proxy.address}
	}
	g.conf.Hub.CAFile = certFile
	stranger.link(c)
	g.link(c)
	g.say(1, 10)
	g.drained()
	if up, _ := stranger.leaf.Linked(); up {
		t.Error("a hub with an unknown certificate is trusted")
	}
}

func selfSigned(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hub"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
