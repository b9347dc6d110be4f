package leaf

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin/leaf/admission"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
)

// relinkAfter is how long the server waits, when the link has ended, before it asks
// the tunnel for another connection. It differs from device to device, or all would be
// back at a hub that was restarted in the same moment.
func relinkAfter() time.Duration {
	return 50*time.Millisecond + rand.N(150*time.Millisecond)
}

// defaultHubPort is that of leafnode connections, where the URL names none.
const defaultHubPort = "7422"

// local are subjects that stay inside the device or inside the hub, whatever
// the other side permits: a second fence behind the separate accounts. Of a
// module, only calls of its methods come over the link.
var local = []string{
	"$SYS.>", "$JS.>", "$KV.>", "$O.>", "$SRV.>", "devices.*.twin.>", "devices.*.modules.*.twin.>",
	"devices.*.modules.*.out.>", "devices.*.modules.*.in.>", "devices.*.modules.*.hub.>",
}

// hubURL is where the hub is, with a port.
func hubURL(hub *schema.HubLink) (*url.URL, error) {
	u, err := url.Parse(hub.URL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "nats-leaf" && u.Scheme != "tls" || u.Hostname() == "" || u.User != nil || (u.Path != "" && u.Path != "/") {
		return nil, fmt.Errorf("url %q: want nats-leaf://host:7422 or tls://host:7422", hub.URL)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), defaultHubPort)
	}
	return u, nil
}

// remoteHub says how the server links to the hub.
func remoteHub(c Config, t *tunnel) (*server.RemoteLeafOpts, error) {
	u, err := hubURL(c.Hub)
	if err != nil {
		return nil, err
	}
	key, warning, err := identity.DeviceKey(c.StateDir)
	if err != nil {
		return nil, err
	}
	if warning != nil {
		c.Warn(warning)
	}
	seed, err := key.Seed()
	if err != nil {
		return nil, err
	}
	r := &server.RemoteLeafOpts{
		LocalAccount:            admission.Uplink,
		URLs:                    []*url.URL{u},
		Nkey:                    string(seed),
		DenyImports:             local,
		DenyExports:             local,
		FirstInfoTimeout:        10 * time.Second,
		IgnoreDiscoveredServers: true, // only the address that the owner gave
	}
	t.lead(r)
	if u.Scheme == "tls" || c.Hub.CAFile != "" {
		r.TLS = true
		r.TLSTimeout = 10 // seconds
		r.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
		if r.TLSConfig.RootCAs, err = roots(c.Hub.CAFile); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// roots reads certificates to trust in place of the system's.
func roots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, 1<<20))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s: no PEM certificate in it", path)
	}
	return pool, nil
}

// link follows whether the hub is connected.
type link struct {
	server *embedded
	system *nats.Conn
	end    context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	up      bool
	passage int // that it is up by
	since   time.Time
	changed chan struct{} // closed, and replaced, on each change
}

// watchServer follows the server's own events, and looks now and then all the
// same.
func watchServer(s *embedded, a *admission.Admission, log *log) (*link, error) {
	key, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	if err := a.Allow(key, admission.System); err != nil {
		return nil, err
	}
	k := &link{server: s, since: time.Now(), changed: make(chan struct{}), done: make(chan struct{})}
	if k.system, err = connect(s, "link", "system", key, log); err != nil {
		return nil, err
	}
	look := make(chan struct{}, 1)
	note := func(*nats.Msg) {
		select {
		case look <- struct{}{}:
		default:
		}
	}
	_, errConnect := k.system.Subscribe("$SYS.ACCOUNT."+admission.Uplink+".*", note)
	_, errLeaf := k.system.Subscribe("$SYS.ACCOUNT."+admission.Uplink+".LEAFNODE.CONNECT", note)
	if err := errors.Join(errConnect, errLeaf); err != nil {
		k.system.Close()
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	k.end = end
	go k.follow(ctx, look)
	return k, nil
}

func (k *link) follow(ctx context.Context, look <-chan struct{}) {
	defer close(k.done)
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		k.see(k.server.linked())
		select {
		case <-ctx.Done():
			return
		case <-look:
		case <-tick.C:
		}
	}
}

// see takes how the link is. One that is up by another passage was down in between.
func (k *link) see(up bool, passage int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if up != k.up || up && passage != k.passage {
		k.up, k.passage, k.since = up, passage, time.Now()
		close(k.changed)
		k.changed = make(chan struct{})
	}
}

func (k *link) state() (up bool, since time.Time, changed <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.up, k.since, k.changed
}

func (k *link) close() {
	k.end()
	<-k.done
	k.system.Close()
}

// Linked says whether the link to the hub is up, and since when it is as it is.
func (l *Leaf) Linked() (up bool, since time.Time) {
	up, since, _ = l.link.state()
	return up, since
}

// WatchLink calls f with the present state of the link and on each change, one
// call at a time, until ctx ends or the leaf is closed. A link that was lost and
// is back before f could be told is told as both.
func (l *Leaf) WatchLink(ctx context.Context, f func(up bool)) {
	up, _, changed := l.link.state()
	f(up)
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.closing.Done():
			return
		case <-changed:
		}
		was := up
		if up, _, changed = l.link.state(); up == was {
			f(!up)
		}
		f(up)
	}
}
