package leaf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tidemark-edge/tidemark/twin/leaf/admission"
)

// What one client may take, so that a module that runs wild harms only itself.
const (
	maxPayload     = 1 << 20  // bytes of a message; a whole twin fits
	maxSubs        = 512      // subscriptions of a connection
	maxConnections = 8 << 10  // of all clients: 500 modules with as many as they may have, and ours for each
	maxPending     = 16 << 20 // bytes that wait for a client that does not read
	maxControlLine = 1024     // bytes of a protocol line
)

// embedded is the server inside the agent, and its way to the hub. It may be started
// again while the leaf runs: whoever is connected, within the process or over TCP,
// finds it at the same place, and comes back by itself.
type embedded struct {
	config    Config
	host      string
	port      int // 0 until the first start: a free one
	admission *admission.Admission
	log       *log

	mu     sync.Mutex
	server *server.Server // nil while none runs
	tunnel *tunnel        // nil while none runs, and where there is no hub
}

var errNoServer = errors.New("the server is being started")

// running is the server that runs; nil for none.
func (e *embedded) running() *server.Server {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.server
}

// InProcessConn implements nats.InProcessConnProvider.
func (e *embedded) InProcessConn() (net.Conn, error) {
	if s := e.running(); s != nil {
		return s.InProcessConn()
	}
	return nil, errNoServer
}

// linked reports whether the hub is connected, and by which passage of the tunnel.
func (e *embedded) linked() (up bool, passage int) {
	e.mu.Lock()
	s, t := e.server, e.tunnel
	e.mu.Unlock()
	return s != nil && s.NumLeafNodes() > 0, t.passages()
}

// start returns when clients can connect. Nobody else starts or stops it meanwhile.
func (e *embedded) start(ctx context.Context) (err error) {
	var t *tunnel
	if e.config.Hub != nil {
		if t, err = openTunnel(e.config.Hub, e.log); err != nil {
			return err
		}
	}
	s, err := e.startServer(ctx, t)
	if err != nil {
		if t != nil {
			t.close()
		}
		return err
	}
	e.port = s.Addr().(*net.TCPAddr).Port
	e.mu.Lock()
	defer e.mu.Unlock()
	e.server, e.tunnel = s, t
	return nil
}

// stop ends all connections and the server.
func (e *embedded) stop() {
	e.mu.Lock()
	s, t := e.server, e.tunnel
	e.server, e.tunnel = nil, nil
	e.mu.Unlock()
	if t != nil {
		t.close() // the server would wait for it
	}
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

func (e *embedded) startServer(ctx context.Context, t *tunnel) (*server.Server, error) {
	options, err := serverOptions(e.config, e.host, e.port, e.admission, t)
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(options)
	if err != nil {
		return nil, err
	}
	e.admission.Serve(s) // before the first client can ask
	e.log.begin()
	s.SetLoggerV2(e.log, false, false, false)
	started := make(chan struct{})
	go func() {
		s.Start()
		close(started)
	}()
	// JetStream recovers its streams before the server accepts; that may take
	// long on a slow disk, so only the caller's context bounds it.
	for {
		select {
		case err := <-e.log.fatal:
			s.Shutdown()
			return nil, err
		case <-ctx.Done():
			s.Shutdown()
			return nil, fmt.Errorf("start the server: %w", ctx.Err())
		case <-started:
			if s.ReadyForConnections(10 * time.Millisecond) {
				return s, nil
			}
		}
	}
}

func serverOptions(c Config, host string, port int, a *admission.Admission, t *tunnel) (*server.Options, error) {
	store := jetStreamDir(c)
	if err := os.MkdirAll(store, 0o700); err != nil {
		return nil, err
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	o := &server.Options{}
	// The only way to say that one account has JetStream and another has not.
	if err := o.ProcessConfigString(`accounts { LOCAL { jetstream: enabled }, UPLINK {} }`); err != nil {
		return nil, err
	}
	o.ServerName = c.Device
	o.Host, o.Port = host, port
	o.NoSigs = true
	o.NoLog = true
	o.MaxConn = maxConnections
	o.MaxSubs = maxSubs
	o.MaxPayload = maxPayload
	o.MaxPending = maxPending
	o.MaxControlLine = maxControlLine
	o.MaxTracedMsgLen = 256
	o.MaxClosedClients = 16      // for monitoring, which nobody does here
	o.PingInterval = time.Minute // a way that is lost while nothing is to be said is noticed after three
	o.WriteDeadline = 5 * time.Second
	o.AuthTimeout = 5
	o.AlwaysEnableNonce = true
	o.CustomClientAuthentication = a

	o.JetStream = true
	o.StoreDir = store
	o.JetStreamDomain = c.Device
	o.JetStreamMaxStore = c.MaxStore
	o.JetStreamMaxMemory = c.MaxMemory
	o.SyncAlways = true // what is acknowledged is on disk
	o.DisableJetStreamBanner = true

	if c.Hub == nil {
		return o, nil
	}
	remote, err := remoteHub(c, t)
	if err != nil {
		return nil, fmt.Errorf("link to the hub: %w", err)
	}
	o.LeafNode.ReconnectInterval = relinkAfter()
	o.LeafNode.Remotes = []*server.RemoteLeafOpts{remote}
	return o, nil
}

// jetStreamFolder is where JetStream keeps its streams, in the state directory.
const jetStreamFolder = "jetstream"

func jetStreamDir(c Config) string { return filepath.Join(c.StateDir, jetStreamFolder) }
