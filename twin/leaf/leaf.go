// Package leaf is the NATS server inside the agent: modules connect to it,
// their twins live in it, and it links to the hub when there is one.
//
// It has two accounts. LOCAL is for modules, for the agent and for people on
// the device; it has JetStream (domain = the device's name). UPLINK holds
// nothing but the leafnode link to the hub and the agent's own connections to
// it. Nothing passes from one to the other but through the agent, so that no
// permission that is set wrong can let module traffic out or the hub's in.
package leaf

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// Config says where the leaf keeps things and whom it links to.
type Config struct {
	Device    string          // the device's name
	StateDir  string          // survives reboots: jetstream/, twins/ and identity.nk in it
	RunDir    string          // on tmpfs: seeds of modules and of the operator
	Listen    string          // host:port for clients, and the port inside modules' network namespaces; port 0 takes a free one
	Hub       *schema.HubLink // nil: the device stands alone
	MaxStore  int64           // bytes that JetStream may take on disk; 0 is 512 MiB
	MaxMemory int64           // bytes that JetStream may take for memory streams; 0 is 8 MiB
	Warn      func(error)     // told what a person should know and no call returns, from any goroutine; may be nil
}

// Leaf is a running server with the twins of a device.
type Leaf struct{}

var errNotBuilt = errors.New("not built")

// Open starts the server and reads the twins.
func Open(ctx context.Context, config Config) (*Leaf, error) { return nil, errNotBuilt }

// Close ends it.
func (l *Leaf) Close() error { return errNotBuilt }

// Connect returns a new connection inside the device (account LOCAL): to the
// modules and to JetStream, with every permission. Nothing that is published on
// it reaches the hub. The caller closes it.
func (l *Leaf) Connect(name string) (*nats.Conn, error) { return nil, errNotBuilt }

// ConnectHub returns a new connection to the hub (account UPLINK): what is
// published on it reaches the hub when the link is up and the hub permits it,
// and nobody else. It stays connected while the link is down; requests then
// fail with nats.ErrNoResponders or by their deadline. Its inbox prefix is
// twin.Inbox(device, ""). The caller closes it.
func (l *Leaf) ConnectHub(name string) (*nats.Conn, error) { return nil, errNotBuilt }

// ClientURL is where clients on the device's own network connect to.
func (l *Leaf) ClientURL() string { return "" }

// Linked says whether the link to the hub is up, and since when it is as it is.
func (l *Leaf) Linked() (up bool, since time.Time) { return false, time.Time{} }

// WatchLink calls f with the present state of the link and on each change, one
// call at a time, until ctx ends.
func (l *Leaf) WatchLink(ctx context.Context, f func(up bool)) {}

// Identity makes the run directory of a module.
func (l *Leaf) Identity(ctx context.Context, module string, uid, gid uint32) (dir string, env map[string]string, err error) {
	return "", nil, errNotBuilt
}

// Attach answers for the leaf inside the network namespace of a process.
func (l *Leaf) Attach(ctx context.Context, module string, pid int) error { return errNotBuilt }

// Declare implements reconciler.Reporter.
func (l *Leaf) Declare(ctx context.Context, desired schema.Desired) error { return errNotBuilt }

// Report implements reconciler.Reporter.
func (l *Leaf) Report(ctx context.Context, report schema.Report) error { return errNotBuilt }

// Documents returns all twins of the device, its own first, then the modules'
// by name. The values are shared: read them, do not modify them.
func (l *Leaf) Documents() []twin.Document { return nil }

// Changed returns a channel that holds one value when a document changed since
// the last receive. It has one reader, the hub uplink.
func (l *Leaf) Changed() <-chan struct{} { return nil }

// Raise lifts the versions of a twin to at least what the hub holds, so that a
// device that lost its state goes on above. module is empty for the device.
func (l *Leaf) Raise(ctx context.Context, module string, desired, reported uint64) error {
	return errNotBuilt
}

// Handle answers devices.<device>.rpc.<name>, from people on the device and from
// the hub. An error is answered as {"error": {…}}.
func (l *Leaf) Handle(name string, f func(ctx context.Context, body []byte) ([]byte, error)) error {
	return errNotBuilt
}

// DeviceIdentity returns the public NKey of the device ("U…").
func DeviceIdentity(stateDir string) (public string, err error) { return "", errNotBuilt }

// Dial connects a person's command to the agent of this device.
func Dial(runDir string) (conn *nats.Conn, device string, err error) { return nil, "", errNotBuilt }
