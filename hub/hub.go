// Package hub is the cloud side: devices link to it, it keeps what they send,
// and it admits exactly the devices whose keys the fleet repository names.
//
//	fleet repository ── new accepted commit ──▶ devices with their NKeys ──▶ admission
//	                                       └──▶ fleet.moved
//	up.<device>.messages              into stream MESSAGES: in order and once, with
//	                                  what was lost in its place
//	up.<device>.twin                  newest document into the KV bucket "twins"
//
// The NATS server is embedded, or one that somebody else runs; streams and
// subjects are the same. There is one stream and one bucket for the whole fleet,
// never one for a device.
//
// The hub holds no truth: lose it, and devices fill it again with their twins
// and with every message that it has not acknowledged.
package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/schema"
)

// Source is the fleet repository, as gitsource.Source reads it.
type Source interface {
	// Fetch returns the newest acceptable commit and its tree. An error leaves
	// what was accepted before as it is.
	Fetch(ctx context.Context) (schema.Revision, fs.FS, error)
}

// Config says what a hub is made of.
type Config struct {
	schema.HubConfig
	Source  Source                                                        // the fleet repository
	Devices func(ctx context.Context, tree fs.FS) ([]schema.Entry, error) // every device that a tree defines; bounded in time and memory by the implementation
	Warn    func(error)                                                   // told what a person should know and no call returns, from any goroutine; may be nil
	Moved   func(revision schema.Revision, devices map[string]string)     // told of each accepted commit, and whom it admits (public NKey by device name); may be nil
}

// Hub runs from Open to Close.
type Hub struct {
	config    Config
	embedded  *embedded // nil with an external server
	nc        *nats.Conn
	js        jetstream.JetStream
	twins     jetstream.KeyValue
	admission *admission
	fleet     fleet                                 // what is admitted
	followed  string                                // the commit that is admitted, on the disk and announced
	told      string                                // the commit that devices were told of last
	look      chan struct{}                         // Look was called
	connect   func(name string) (*nats.Conn, error) // another connection, as nc is one
	devices   *nats.Conn                            // for what devices send
	intake    *intake
	work      *work // requests that are being answered
}

// Open starts the server, or connects to the external one, and answers devices
// that were admitted before. Run follows the fleet repository.
func Open(ctx context.Context, config Config) (*Hub, error) {
	if config.Warn == nil {
		config.Warn = func(error) {}
	}
	if config.Moved == nil {
		config.Moved = func(schema.Revision, map[string]string) {}
	}
	config.defaults()
	if err := os.MkdirAll(config.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("open hub: %w", err)
	}
	h := &Hub{
		config: config, admission: newAdmission(),
		look: make(chan struct{}, 1), work: newWork(),
	}
	if err := h.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open hub: %w", err), h.Close())
	}
	return h, nil
}

// defaults are those of #Hub, for callers who did not read a file.
func (c *Config) defaults() {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:4223"
	}
	if c.LeafListen == "" {
		c.LeafListen = "0.0.0.0:7422"
	}
	if c.Streams.MaxBytes == 0 {
		c.Streams.MaxBytes = 1 << 30
	}
	c.Streams.Replicas = max(c.Streams.Replicas, 1)
	if c.Repository.Poll <= 0 {
		c.Repository.Poll = schema.Duration(time.Minute)
	}
}

func (h *Hub) open(ctx context.Context) (err error) {
	var broken error
	if h.fleet, broken, err = readFleet(filepath.Join(h.config.StateDir, fleetFile)); err != nil {
		return err
	}
	if broken != nil {
		h.config.Warn(broken)
	}
	if h.config.External != nil {
		err = h.connectExternal()
	} else {
		err = h.startEmbedded(ctx)
	}
	if err != nil {
		return err
	}
	if h.js, err = jetstream.New(h.nc); err != nil {
		return err
	}
	if err := h.openStreams(ctx); err != nil {
		return err
	}
	if err := h.openIntake(); err != nil {
		return err
	}
	return h.serve(ctx)
}

// openIntake takes messages of devices from here on.
func (h *Hub) openIntake() (err error) {
	if most := h.nc.MaxPayload(); most < maxPayload {
		return fmt.Errorf("the server's max_payload is %d, and messages of devices have up to %d bytes: raise it", most, maxPayload)
	}
	if h.devices, err = h.connect("tidemark-hub-devices"); err != nil {
		return err
	}
	if h.intake, err = newIntake(h.devices, h.nc, h.embedded != nil, repeated(h.config.Warn)); err != nil {
		return err
	}
	h.nc.SetReconnectHandler(func(*nats.Conn) { h.intake.lanes.forgetAll() })
	return h.intake.open()
}

// ClientURL is where people and services connect to.
func (h *Hub) ClientURL() string {
	if h.embedded == nil {
		return h.config.External.URL
	}
	return h.embedded.server.ClientURL()
}

// LeafAddress is the host:port where devices connect to; empty with an external
// server.
func (h *Hub) LeafAddress() string {
	if h.embedded == nil {
		return ""
	}
	return h.embedded.leafAddress
}

// OperatorSeed is the path of the seed file with which a person may do
// everything on the embedded server. With an external one there is none.
func (h *Hub) OperatorSeed() string { return filepath.Join(h.config.StateDir, operatorFile) }

// Close ends the hub. What it stored stays.
func (h *Hub) Close() error {
	if h.devices != nil {
		h.devices.Close()
	}
	if h.intake != nil {
		h.intake.close()
	}
	if h.nc != nil {
		h.nc.Close()
	}
	if h.embedded != nil {
		h.embedded.stop()
	}
	return nil
}
