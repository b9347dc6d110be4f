package hub

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

const (
	maxPayload = 1 << 20 // bytes of a message, the same as on the device
	maxTwins   = 1 << 30 // bytes of the twins of the whole fleet
	maxSubs    = 4096    // subscriptions of one connection; a device has about ten
)

// embedded is the hub's own NATS server.
type embedded struct {
	server      *server.Server
	leafAddress string
}

// startEmbedded starts it and connects to it, inside the process.
func (h *Hub) startEmbedded(ctx context.Context) error {
	operator, err := operatorKey(h.OperatorSeed())
	if err != nil {
		return err
	}
	h.admission.operator(operator)
	h.admission.admit(h.fleet.Devices)
	options, err := h.serverOptions()
	if err != nil {
		return err
	}
	s, err := server.NewServer(options)
	if err != nil {
		return err
	}
	log := newServerLog(h.config.Warn)
	s.SetLoggerV2(log, false, false, false)
	h.admission.serve(s)
	h.embedded = &embedded{server: s}
	started := make(chan struct{})
	go func() {
		s.Start()
		close(started)
	}()
	if err := ready(ctx, s, started, log.fatal); err != nil {
		return err
	}
	h.embedded.leafAddress = net.JoinHostPort(options.LeafNode.Host, strconv.Itoa(options.LeafNode.Port))
	if v, err := s.Varz(nil); err == nil && options.LeafNode.Port == server.RANDOM_PORT {
		h.embedded.leafAddress = net.JoinHostPort(options.LeafNode.Host, strconv.Itoa(v.LeafNode.Port))
	}
	key, err := nkeys.CreateUser() // for this run; it is nowhere on disk
	if err != nil {
		return err
	}
	public, err := key.PublicKey()
	if err != nil {
		return err
	}
	h.admission.operator(public)
	h.connect = func(name string) (*nats.Conn, error) {
		return nats.Connect("", nats.InProcessServer(s), nats.Name(name), nats.MaxReconnects(-1), nats.ErrorHandler(h.troubled),
			nats.Nkey(public, func(nonce []byte) ([]byte, error) { return key.Sign(nonce) }))
	}
	h.nc, err = h.connect("tidemark-hub")
	return err
}

// troubled is told what goes wrong on a connection and no call returns.
func (h *Hub) troubled(_ *nats.Conn, _ *nats.Subscription, err error) {
	h.config.Warn(fmt.Errorf("hub's connection: %w", err))
}

// ready waits until clients can connect. JetStream reads its streams before
// that, which may take long on a slow disk: only ctx bounds it.
func ready(ctx context.Context, s *server.Server, started <-chan struct{}, fatal <-chan error) error {
	for {
		select {
		case err := <-fatal:
			return fmt.Errorf("start the server: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("start the server: %w", ctx.Err())
		case <-started:
			if s.ReadyForConnections(10 * time.Millisecond) {
				return nil
			}
		}
	}
}

func (h *Hub) serverOptions() (*server.Options, error) {
	host, port, err := listenAddress("listen", h.config.Listen)
	if err != nil {
		return nil, err
	}
	leafHost, leafPort, err := listenAddress("leafListen", h.config.LeafListen)
	if err != nil {
		return nil, err
	}
	store := filepath.Join(h.config.StateDir, "jetstream")
	if err := os.MkdirAll(store, 0o700); err != nil {
		return nil, err
	}
	o, err := withAccounts()
	if err != nil {
		return nil, err
	}
	o.ServerName, o.Host, o.Port, o.NoSigs, o.NoLog = "tidemark-hub", host, port, true, true
	o.MaxPayload, o.MaxSubs = maxPayload, maxSubs
	o.PingInterval, o.WriteDeadline, o.AuthTimeout = 30*time.Second, 10*time.Second, 10
	o.AlwaysEnableNonce, o.CustomClientAuthentication = true, h.admission
	o.JetStream, o.JetStreamDomain, o.StoreDir, o.SyncAlways, o.DisableJetStreamBanner = true, "hub", store, true, true
	// Explicit: the automatic limit shrinks with the free disk, and a full
	// stream then does not come back after a restart (nats-server#3641).
	o.JetStreamMaxStore = int64(h.config.Streams.MaxBytes) + maxTwins + 64<<20
	o.JetStreamMaxMemory = 16 << 20
	o.JetStreamLimits.MaxBatchSize = maxCommit
	o.LeafNode.Host, o.LeafNode.Port = leafHost, leafPort
	o.LeafNode.AuthTimeout = 10
	// Devices stay at the address that they were given, behind a proxy maybe.
	o.LeafNode.NoAdvertise = true
	// No device learns what another subscribes to: 1000 would not settle.
	o.LeafNode.IsolateLeafnodeInterest = true
	if t := h.config.TLS; t != nil {
		if err := durable.CheckSecret(t.KeyFile); err != nil {
			return nil, fmt.Errorf("tls of leafListen: keyFile: %w", err)
		}
		certificate, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls of leafListen: %w", err)
		}
		o.LeafNode.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}
		o.LeafNode.TLSTimeout = 10
	}
	return o, nil
}

func listenAddress(what, s string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%s %q: want host:port: %w", what, s, err)
	}
	if port, err = strconv.Atoi(p); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%s %q: want a port from 0 to 65535, where 0 takes a free one", what, s)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

func (e *embedded) stop() {
	e.server.Shutdown()
	e.server.WaitForShutdown()
}
