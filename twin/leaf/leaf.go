// Package leaf is the NATS server inside the agent: modules connect to it,
// their twins live in it, and it links to the hub when there is one.
//
// It has two accounts. LOCAL is for modules, for the agent and for people on
// the device; it has JetStream (domain = the device's name). UPLINK holds
// nothing but the leafnode link to the hub and the agent's own connections to
// it. Nothing passes from one to the other but through the agent, so that no
// permission that is set wrong can let module traffic out or the hub's in.
//
// Modules are admitted by the NKey whose seed the leaf made for them in the run
// directory, without anybody else being asked: they reconnect for ever, with no
// network and no clock.
package leaf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/admission"
	"github.com/tidemark-edge/tidemark/twin/leaf/door"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
	"github.com/tidemark-edge/tidemark/twin/leaf/ledger"
)

// twinsDir is where the twins are, below the state directory.
const twinsDir = "twins"

// DefaultListen is Config.Listen where that is empty.
const DefaultListen = "127.0.0.1:4222"

// Config says where the leaf keeps things and whom it links to.
type Config struct {
	Device    string          // the device's name
	StateDir  string          // survives reboots: jetstream/, twins/ and identity.nk in it
	RunDir    string          // on tmpfs: seeds of modules and of the operator; a tmpfs is mounted there where there is none
	Listen    string          // host:port for clients, and the port inside modules' network namespaces; the host is loopback or 0.0.0.0; port 0 takes a free one
	Hub       *schema.HubLink // nil: the device stands alone
	Grants    schema.Grants   // what definitions may allow modules beyond their own subjects
	MaxStore  int64           // bytes that JetStream may take on disk; 0 is 512 MiB
	MaxMemory int64           // bytes that JetStream may take for memory streams; 0 is 8 MiB
	Warn      func(error)     // told what a person should know and no call returns, from any goroutine; may be nil

	// Signal sends a signal ("SIGHUP") to the process of a module whose desired.json
	// changed, and does nothing when none runs. It is called again after an error,
	// and may be once too often after the agent was killed. Nil: there are no signals.
	Signal func(ctx context.Context, module, signal string) error
	// Noted is told what became of overrides, in order, one call at a time, when it
	// is on disk. It may call the Leaf. Nil: nobody is.
	Noted func(OverrideEvent)

	clock       ledger.Clock  // zero: the kernel's
	healEvery   time.Duration // zero: healEvery
	expireEvery time.Duration // zero: expireEvery
}

// Leaf is a running server with the twins of a device. Its methods may be
// called at the same time.
type Leaf struct {
	config    Config
	server    *embedded
	admission *admission.Admission
	keyring   *identity.Keyring // guarded by declaring
	agent     nkeys.KeyPair     // of our own connections inside the device; never leaves the process
	uplink    nkeys.KeyPair     // of our own connections to the hub; never leaves the process
	ledger    *ledger.Ledger
	twins     *twins
	link      *link
	doors     *door.Doors
	methods   *methods
	courier   *courier
	overrides *overrides
	warn      func(error)
	log       *log
	declaring sync.Mutex  // one at a time of what changes desired, tells it, or makes a module's directory
	shortens  atomic.Bool // the latest report was too large
	closing   context.Context
	end       context.CancelFunc
	running   sync.WaitGroup // what runs until then
}

// Open starts the server and reads the twins. Modules that were declared when
// the last Leaf was closed are admitted at once.
func Open(ctx context.Context, config Config) (_ *Leaf, err error) {
	host, port, err := config.fill()
	if err != nil {
		return nil, fmt.Errorf("open leaf: %w", err)
	}
	l := &Leaf{config: config, warn: config.Warn, log: newLog(config.Warn)}
	l.closing, l.end = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open leaf: %w", err), l.Close())
		}
	}()
	if err := errors.Join(identity.PrepareStateDir(config.StateDir, jetStreamFolder, twinsDir), identity.PrepareRunDir(config.RunDir)); err != nil {
		return nil, err
	}
	if l.ledger, err = ledger.Open(filepath.Join(config.StateDir, twinsDir), config.Device, l.warn); err != nil {
		return nil, fmt.Errorf("twins: %w", err)
	}
	if err := l.recall(); err != nil {
		return nil, err
	}
	l.overrides = newOverrides(config.Noted)
	if l.courier, err = l.newCourier(); err != nil {
		return nil, err
	}
	if err := l.makeKeys(); err != nil {
		return nil, err
	}
	if l.keyring, err = identity.OpenKeyring(config.RunDir, l.warn); err != nil {
		return nil, err
	}
	l.admitBefore()
	l.server = &embedded{config: config, host: host, port: port, admission: l.admission, log: l.log}
	if err := l.server.start(ctx); err != nil {
		return nil, err
	}
	if err := l.writeOperator(); err != nil {
		return nil, err
	}
	if l.doors, err = door.New(l.server.port, l.admission, l.warn); err != nil {
		return nil, err
	}
	if l.link, err = watchServer(l.server, l.admission, l.log); err != nil {
		return nil, err
	}
	if l.methods, err = l.newMethods(); err != nil {
		return nil, err
	}
	if l.twins, err = l.newTwins(); err != nil {
		return nil, err
	}
	l.running.Go(func() { l.courier.run(l.closing) })
	l.running.Go(func() { l.watchOverrides(l.closing) })
	l.running.Go(func() { l.expireKeys(l.closing) })
	healer := &healer{server: l.server, lost: func() { l.link.see(false, 0) }, warn: l.warn}
	l.running.Go(func() { healer.run(l.closing) })
	return l, nil
}

// fill sets defaults and checks what can be.
func (c *Config) fill() (host string, port int, err error) {
	if err := schema.CheckName(c.Device); err != nil {
		return "", 0, fmt.Errorf("device: %w", err)
	}
	if c.Device == "devices" { // its inbox would hold those of all its modules
		return "", 0, errors.New("device: it cannot be named devices, which is a part of every subject")
	}
	if !filepath.IsAbs(c.StateDir) || !filepath.IsAbs(c.RunDir) {
		return "", 0, fmt.Errorf("state directory %q and run directory %q have to be absolute", c.StateDir, c.RunDir)
	}
	if c.Listen == "" {
		c.Listen = DefaultListen
	}
	if c.MaxStore == 0 {
		c.MaxStore = 512 << 20
	}
	if c.MaxMemory == 0 {
		c.MaxMemory = 8 << 20
	}
	if c.Warn == nil {
		c.Warn = func(error) {}
	}
	c.healEvery, c.expireEvery = cmp.Or(c.healEvery, healEvery), cmp.Or(c.expireEvery, expireEvery)
	if c.clock.Uptime == nil {
		c.clock = ledger.KernelClock()
	}
	host, p, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", 0, fmt.Errorf("listen %q: %w", c.Listen, err)
	}
	ip := net.ParseIP(host)
	if ip == nil || !(ip.IsLoopback() || ip.IsUnspecified()) {
		return "", 0, fmt.Errorf("listen %q: modules connect to 127.0.0.1, so the host has to be that, or 0.0.0.0", c.Listen)
	}
	number, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("listen %q: want a port between 0 and 65535", c.Listen)
	}
	return host, int(number), nil
}

// makeKeys makes the keys of this run and the table that admits them.
func (l *Leaf) makeKeys() error {
	var err error
	if l.agent, err = nkeys.CreateUser(); err != nil {
		return err
	}
	if l.uplink, err = nkeys.CreateUser(); err != nil {
		return err
	}
	l.admission = admission.New(l.config.Device, l.config.Grants, l.config.clock.Uptime)
	return errors.Join(l.admission.Allow(l.agent, admission.Local), l.admission.Allow(l.uplink, admission.Uplink))
}

// Close ends all connections, the server and the doors in the modules'
// namespaces. Modules keep running, and keep trying to connect.
func (l *Leaf) Close() error {
	l.end()
	l.running.Wait()
	if l.twins != nil {
		l.twins.close()
	}
	if l.methods != nil {
		l.methods.close()
	}
	if l.doors != nil {
		l.doors.Close()
	}
	if l.link != nil {
		l.link.close()
	}
	if l.server != nil {
		l.server.stop()
	}
	if l.ledger != nil {
		return l.ledger.Close()
	}
	return nil
}

// Connect returns a new connection inside the device (account LOCAL): to the
// modules and to JetStream, with every permission. Nothing that is published on
// it reaches the hub. The caller closes it.
func (l *Leaf) Connect(name string) (*nats.Conn, error) {
	return connect(l.server, name, l.config.Device, l.agent, l.log)
}

// ConnectHub returns a new connection to the hub (account UPLINK): what is
// published on it reaches the hub when the link is up and the hub permits it,
// and nobody else. It stays connected while the link is down; requests then
// fail with nats.ErrNoResponders or by their deadline. Its inbox prefix is
// twin.Inbox(device, ""). The caller closes it.
func (l *Leaf) ConnectHub(name string) (*nats.Conn, error) {
	return connect(l.server, name, l.config.Device, l.uplink, l.log)
}

// connect makes a connection that stays within the process.
func connect(s nats.InProcessConnProvider, name, device string, key nkeys.KeyPair, log *log) (*nats.Conn, error) {
	public, err := key.PublicKey()
	if err != nil {
		return nil, err
	}
	conn, err := nats.Connect("", nats.InProcessServer(s), nats.Name(name),
		nats.Nkey(public, key.Sign),
		nats.CustomInboxPrefix(twin.Inbox(device, "")),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if !errors.Is(err, nats.ErrSlowConsumer) { // which the subscription's reader is told
				log.say("connection %s: %w", []any{name, err})
			}
		}),
		// As many as a twin's requests may wait: the room is there, and looked at by
		// each collection of garbage, also while nothing waits.
		nats.SyncQueueLen(maxQueued),
		// When the server cut it off because it did not read fast enough, or was
		// started again.
		nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0))
	if err != nil {
		return nil, fmt.Errorf("connect %s to the leaf: %w", name, err)
	}
	return conn, nil
}

// ClientURL is where clients on the device's own network connect to.
func (l *Leaf) ClientURL() string { return "nats://127.0.0.1:" + strconv.Itoa(l.server.port) }
