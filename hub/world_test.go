package hub

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf"
	"github.com/tidemark-edge/tidemark/twin/outbox"
)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// until polls, generously.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// repository stands for the fleet repository: a commit that defines devices.
// TestAdmissionFollowsTheRepository has the real one.
type repository struct {
	mu      sync.Mutex
	commit  int
	entries []schema.Entry
	err     error
}

func (r *repository) Fetch(context.Context) (schema.Revision, fs.FS, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return schema.Revision{Commit: strconv.Itoa(r.commit)}, nil, r.err
}

func (r *repository) devices(context.Context, fs.FS) ([]schema.Entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries, nil
}

// commits makes a new commit with these devices, public NKey by name.
func (r *repository) commits(entries ...schema.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commit++
	r.entries = entries
}

// cloud is a hub that can be restarted on its state, at the same addresses.
type cloud struct {
	t    testing.TB
	hub  *Hub
	conf Config
	repo *repository
	end  func()
}

func newCloud(t testing.TB, entries ...schema.Entry) *cloud {
	t.Helper()
	repo := &repository{commit: 1, entries: entries}
	c := &cloud{t: t, repo: repo, conf: Config{
		HubConfig: schema.HubConfig{
			StateDir: filepath.Join(t.TempDir(), "hub"),
			Listen:   harness.FreeAddress(t), LeafListen: harness.FreeAddress(t),
			Streams: schema.HubStreamsSpec{MaxBytes: 256 << 20},
		},
		Source: repo, Devices: repo.devices, Warn: func(err error) { t.Log("hub warns: ", err) },
	}}
	c.start()
	t.Cleanup(c.stop)
	return c
}

func (c *cloud) start() {
	c.t.Helper()
	admitted := make(chan struct{}, 100)
	c.conf.Moved = func(schema.Revision, map[string]string) { admitted <- struct{}{} }
	h, err := Open(testContext(c.t), c.conf)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := h.Run(ctx); err != nil {
			c.t.Error(err)
		}
	}()
	c.hub = h
	c.end = sync.OnceFunc(func() {
		cancel()
		<-ended
		h.Close()
	})
	if c.repo.err == nil {
		<-admitted
	}
}

func (c *cloud) stop() { c.end() }

// follow makes the hub look, and waits until it took the newest commit.
func (c *cloud) follow(entries ...schema.Entry) {
	c.t.Helper()
	c.repo.commits(entries...)
	c.hub.Look()
	until(c.t, "hub follows", func() bool {
		f, _, err := readFleet(filepath.Join(c.conf.StateDir, fleetFile))
		return err == nil && f.Revision.Commit == strconv.Itoa(c.repo.commit)
	})
}

// operator is a connection of a person.
func (c *cloud) operator() *nats.Conn {
	c.t.Helper()
	nc, err := Dial(c.hub.ClientURL(), c.hub.OperatorSeed())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(nc.Close)
	return nc
}

// as is a connection that speaks for a device, with an operator's rights.
func (c *cloud) as(device string) *nats.Conn {
	c.t.Helper()
	login, err := loginFrom(c.hub.OperatorSeed())
	if err != nil {
		c.t.Fatal(err)
	}
	nc, err := nats.Connect(c.hub.ClientURL(), login, nats.CustomInboxPrefix(twin.Inbox(device, "")),
		nats.ReconnectWait(20*time.Millisecond), nats.MaxReconnects(-1))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(nc.Close)
	return nc
}

// bodies are those of a device's messages in the hub's stream, live and late
// together, in the order of the device; it fails where one is missing or there twice.
func (c *cloud) bodies(device string) []string {
	c.t.Helper()
	c.audited(device)
	var all []Message
	if err := c.hub.Messages().Read(testContext(c.t), Filter{Device: device}, 0, func(m Message) bool {
		if m.Lost == nil {
			all = append(all, m)
		}
		return true
	}); err != nil {
		c.t.Fatal(err)
	}
	slices.SortStableFunc(all, func(a, b Message) int { return cmp.Compare(a.Seq, b.Seq) })
	var out []string
	for _, m := range all {
		out = append(out, string(m.Body))
	}
	return out
}

// gadget is a device: a leaf with an outbox, linked through a proxy.
type gadget struct {
	t      testing.TB
	name   string
	conf   leaf.Config
	leaf   *leaf.Leaf
	box    *outbox.Outbox
	proxy  *proxy
	close  func()
	public string
}

// newGadget makes the device's state directory with its key.
func newGadget(t testing.TB, name string) *gadget {
	t.Helper()
	run, err := os.MkdirTemp("/dev/shm", "tidemark-") // the leaf wants seeds in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	g := &gadget{t: t, name: name, conf: leaf.Config{
		Device: name, StateDir: filepath.Join(t.TempDir(), "state"), RunDir: run,
		Listen: "127.0.0.1:0", Warn: func(err error) { t.Log(name, " warns: ", err) },
	}}
	if g.public, err = leaf.DeviceIdentity(g.conf.StateDir); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *gadget) entry() schema.Entry {
	return schema.Entry{Name: g.name, Dir: g.name, Identity: g.public}
}

// link starts the device, linked to a hub.
func (g *gadget) link(c *cloud) {
	g.t.Helper()
	if g.proxy == nil {
		g.proxy = newProxy(g.t, c.hub.LeafAddress())
		g.conf.Hub = &schema.HubLink{URL: "nats-leaf://" + g.proxy.address}
	}
	g.start()
	g.t.Cleanup(func() { g.close() })
}

func (g *gadget) start() {
	g.t.Helper()
	l, err := leaf.Open(testContext(g.t), g.conf)
	if err != nil {
		g.t.Fatal(err)
	}
	local, err := l.Connect("outbox")
	if err != nil {
		g.t.Fatal(err)
	}
	hub, err := l.ConnectHub("outbox")
	if err != nil {
		g.t.Fatal(err)
	}
	g.leaf = l
	g.open(local, hub)
	g.close = sync.OnceFunc(func() {
		g.box.Close()
		local.Close()
		hub.Close()
		if err := l.Close(); err != nil {
			g.t.Error(err)
		}
	})
}

// open opens the outbox, as the agent does.
func (g *gadget) open(local, hub *nats.Conn) {
	g.t.Helper()
	var err error
	g.box, err = outbox.Open(testContext(g.t), local, hub, outbox.Config{
		Device: g.name, StateDir: g.conf.StateDir, Twins: g.leaf, MaxBytes: 64 << 20,
		Warn: func(err error) { g.t.Log(g.name, " outbox warns: ", err) },
	})
	if err != nil {
		g.t.Fatal(err)
	}
	box := g.box
	go g.leaf.WatchLink(testContext(g.t), func(up bool) {
		if up {
			box.Kick()
		}
	})
}

func (g *gadget) restart() { g.close(); g.start() }

// say sends numbered messages as a module does, many at a time, and returns
// when all are on the device's disk. It speaks as the agent, with a module's
// inbox: how modules are admitted is tested in twin/leaf.
func (g *gadget) say(from, to int) {
	g.t.Helper()
	nc, err := g.leaf.Connect("sensor")
	if err != nil {
		g.t.Error(err)
		return
	}
	defer nc.Close()
	inbox := twin.Inbox(g.name, "sensor") + ".x" + strconv.Itoa(from)
	answers := make(chan *nats.Msg, to-from+1)
	if _, err := nc.ChanSubscribe(inbox, answers); err != nil {
		g.t.Error(err)
		return
	}
	for i := from; i <= to; i++ {
		if err := nc.PublishRequest(twin.Prefix(g.name, "sensor")+".out.n", inbox, []byte(strconv.Itoa(i))); err != nil {
			g.t.Error(err)
			return
		}
	}
	for range to - from + 1 {
		select {
		case m := <-answers:
			if a, err := twin.ReadAnswer(m.Data); err != nil {
				g.t.Errorf("%+v: %v", a, err)
				return
			}
		case <-time.After(30 * time.Second):
			g.t.Error("a message is not answered")
			return
		}
	}
}

func (g *gadget) drained() {
	g.t.Helper()
	until(g.t, g.name+" is drained", func() bool { return g.stats().Pending == 0 })
}

func (g *gadget) stats() outbox.Stats {
	g.t.Helper()
	s, err := g.box.Stats(testContext(g.t))
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

// flows waits until more messages have reached the hub's disk than now.
func (g *gadget) flows(c *cloud) {
	g.t.Helper()
	before := c.held()
	until(g.t, "messages flow", func() bool { return c.held() > before })
}

// held is the number of messages that the hub ever stored.
func (c *cloud) held() uint64 {
	c.t.Helper()
	js, err := jetstream.New(c.hub.nc)
	if err != nil {
		c.t.Fatal(err)
	}
	s, err := js.Stream(testContext(c.t), StreamMessages)
	if err != nil {
		c.t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

func numbers(from, to int) []string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

// proxy stands for the network between device and hub.
type proxy struct {
	address, target string
	mu              sync.Mutex
	refuse          bool    // cut: nobody gets through
	mute            [2]bool // swallow what goes to the hub, to the device
	conns           map[net.Conn]bool
	lost            atomic.Int64 // bytes that were swallowed
	t               testing.TB
}

const (
	toHub    = 0
	toDevice = 1
)

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, address: l.Addr().String(), target: target, conns: map[net.Conn]bool{}}
	t.Cleanup(func() { l.Close(); p.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	hub, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer hub.Close()
	p.mu.Lock()
	refuse := p.refuse
	p.conns[c], p.conns[hub] = true, true
	p.mu.Unlock()
	if refuse {
		return
	}
	go p.copy(c, hub, toDevice)
	p.copy(hub, c, toHub)
}

// copy passes bytes on, or swallows them for as long as the direction is mute:
// then the stream is damaged, as it is when a middle box forgets a connection,
// and the connection has to be cut after it.
func (p *proxy) copy(to, from net.Conn, direction int) {
	defer to.Close()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		p.mu.Lock()
		mute := p.mute[direction]
		p.mu.Unlock()
		if mute {
			p.lost.Add(int64(n))
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// cut ends every connection and lets no new one through.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse, p.mute = true, [2]bool{}
	for c := range p.conns {
		c.Close()
		delete(p.conns, c)
	}
}

// mend lets everything through.
func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = false
}

// silence swallows one direction.
func (p *proxy) silence(direction int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost.Store(0)
	p.mute[direction] = true
}

// swallowed waits until something was lost.
func (p *proxy) swallowed() {
	p.t.Helper()
	until(p.t, "something is lost", func() bool { return p.lost.Load() > 0 })
}

func newKey(t testing.TB) (nkeys.KeyPair, string) {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key, public
}

// login connects to the hub's client port with a device's key.
func login(url string, key nkeys.KeyPair, o ...nats.Option) (*nats.Conn, error) {
	public, err := key.PublicKey()
	if err != nil {
		return nil, err
	}
	return nats.Connect(url, append(o, nats.Nkey(public, func(nonce []byte) ([]byte, error) { return key.Sign(nonce) }))...)
}
