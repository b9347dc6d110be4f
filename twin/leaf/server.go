package leaf

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// The two accounts; see the package comment.
const (
	accountLocal  = "LOCAL"
	accountUplink = "UPLINK"
	accountSystem = "$SYS"
)

// What one client may take, so that a module that runs wild harms only itself.
const (
	maxPayload     = 1 << 20  // bytes of a message; a whole twin fits
	maxSubs        = 512      // subscriptions of a connection
	maxConnections = 8 << 10  // of all clients: 500 modules with as many as they may have, and ours for each
	maxPending     = 16 << 20 // bytes that wait for a client that does not read
	maxControlLine = 1024     // bytes of a protocol line
)

// startServer starts the embedded server and returns when clients can connect.
func startServer(ctx context.Context, c Config, host string, port int, a *admission, log *log) (*server.Server, error) {
	options, err := serverOptions(c, host, port, a)
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(options)
	if err != nil {
		return nil, err
	}
	a.serve(s) // before the first client can ask
	s.SetLoggerV2(log, false, false, false)
	started := make(chan struct{})
	go func() {
		s.Start()
		close(started)
	}()
	// JetStream recovers its streams before the server accepts; that may take
	// long on a slow disk, so only the caller's context bounds it.
	for {
		select {
		case err := <-log.fatal:
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

func serverOptions(c Config, host string, port int, a *admission) (*server.Options, error) {
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
	remote, err := remoteHub(c)
	if err != nil {
		return nil, fmt.Errorf("link to the hub: %w", err)
	}
	o.LeafNode.ReconnectInterval = relinkAfter()
	o.LeafNode.Remotes = []*server.RemoteLeafOpts{remote}
	return o, nil
}

// jetStreamConfig is what the server makes of the options for itself, which it
// does not tell.
func jetStreamConfig(c Config) server.JetStreamConfig {
	return server.JetStreamConfig{
		StoreDir: jetStreamDir(c), Domain: c.Device, MaxStore: c.MaxStore, MaxMemory: c.MaxMemory,
		SyncInterval: 2 * time.Minute, SyncAlways: true, CompressOK: true, Strict: true,
	}
}

// jetStreamDir is where JetStream keeps its streams, one folder below.
func jetStreamDir(c Config) string { return filepath.Join(c.StateDir, "jetstream") }
