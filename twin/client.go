package twin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// The environment that every module is started with. Any NATS client in any
// language connects with it: to the URL, with the NKey seed in the file, and
// with Inbox as inbox prefix.
const (
	EnvURL      = "TIDEMARK_URL"      // nats://127.0.0.1:4222
	EnvIdentity = "TIDEMARK_IDENTITY" // /devices/<device>/modules/<module>; /devices/<device> for the device itself
	EnvCreds    = "TIDEMARK_CREDS"    // file with the NKey seed; replaced when the identity is rotated
)

// flushBefore is how long the last answers may take to be sent before closing.
const flushBefore = time.Second

// Client is the connection of a module to its device: to its twin, to the queues
// that lead to the hub and to other modules, and to direct methods. A person on
// the device connects alike, as the device itself, whose twin it then has.
//
// It outlives every restart of the agent, and takes a new seed when the identity
// is rotated. While the agent is away, Get, Report, Replace and Send wait until
// their context ends, Call is refused at once, and desired changes that were
// missed are caught up with when it is back. All methods may be called at the
// same time; whatever is refused is an *Error.
//
//	client, err := twin.Connect(ctx)
//	err = client.OnDesired(func(s twin.Section) { … })
//	version, err := client.Report(ctx, map[string]any{"temperature": 21.5})
type Client struct {
	Device string // the device that the module runs on
	Module string // the module's own name; empty for the device itself

	conn    *nats.Conn
	prefix  string
	closing context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup // the loops, and the calls of methods

	mu        sync.Mutex
	asks      map[*ask]struct{} // that wait for an answer
	followers []chan struct{}   // each holds one value when there may be news
	taken     map[string]bool   // subjects that somebody answers
}

// Connect connects to the leaf of the device, from TIDEMARK_URL,
// TIDEMARK_IDENTITY and TIDEMARK_CREDS. It waits for the leaf until ctx ends; an
// environment that is missing or wrong is an error at once.
func Connect(ctx context.Context) (*Client, error) {
	device, module, err := splitAddress(os.Getenv(EnvIdentity))
	if err != nil {
		return nil, err
	}
	url, creds := os.Getenv(EnvURL), os.Getenv(EnvCreds)
	if url == "" || creds == "" {
		return nil, fmt.Errorf("connect to the device: %s and %s have to be set, as Tidemark does for its modules", EnvURL, EnvCreds)
	}
	d, err := newDialer(creds)
	if err != nil {
		return nil, fmt.Errorf("connect to the device: read the seed in %s: %w", creds, err)
	}
	c := &Client{Device: device, Module: module, prefix: Prefix(device, module), asks: map[*ask]struct{}{}, taken: map[string]bool{}}
	c.closing, c.end = context.WithCancel(context.Background())
	up := make(chan struct{}, 1)
	c.conn, err = nats.Connect(url, d.option(),
		nats.Name(os.Getenv(EnvIdentity)),
		nats.CustomInboxPrefix(Inbox(device, module)),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.IgnoreAuthErrorAbort(), // the agent may not have read its definitions yet
		nats.ReconnectWait(250*time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		nats.ReconnectBufSize(-1), // what cannot be sent fails, rather than be sent later unseen
		nats.ConnectHandler(func(*nats.Conn) { signal(up) }),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { c.give(errLost, "") }),
		nats.ReconnectHandler(func(*nats.Conn) { c.relinked(); signal(up) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.refused(err) }),
	)
	if err != nil {
		c.end()
		return nil, fmt.Errorf("connect to %s: %w", url, err)
	}
	d.conn.Store(c.conn)
	for !c.conn.IsConnected() {
		select {
		case <-up:
		case <-ctx.Done():
			c.Close()
			return nil, fmt.Errorf("connect to %s: %w", url, ctx.Err())
		}
	}
	return c, nil
}

// splitAddress takes /devices/<device>/modules/<module>, or /devices/<device>,
// apart.
func splitAddress(address string) (device, module string, err error) {
	rest, ok := strings.CutPrefix(address, "/devices/")
	device, module, isModule := strings.Cut(rest, "/modules/")
	if !ok || !isName(device) || isModule && !isName(module) {
		return "", "", fmt.Errorf("connect to the device: %s is %q, want /devices/<device>/modules/<module>", EnvIdentity, address)
	}
	return device, module, nil
}

// isName reports whether s may be a part of a subject of ours: a DNS label.
func isName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return true
}

func checkName(s string) error {
	if !isName(s) {
		return &Error{Code: CodeMalformed, Message: fmt.Sprintf("name %s: want 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit", clip(s))}
	}
	return nil
}

// relinked starts on a new connection: what was published meanwhile was missed.
func (c *Client) relinked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.followers {
		signal(f)
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// start runs a loop until Close.
func (c *Client) start(loop func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing.Err() != nil {
		return nats.ErrConnectionClosed
	}
	c.running.Go(loop)
	return nil
}

// serve calls f with each request to P.<kind>.<name>, one at a time, until
// Close. Of several instances of a module one gets it.
func (c *Client) serve(kind, name string, f func(*nats.Msg)) (err error) {
	if err := checkName(name); err != nil {
		return err
	}
	subject := c.prefix + "." + kind + "." + name
	if err := c.take(subject); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			c.mu.Lock()
			delete(c.taken, subject)
			c.mu.Unlock()
		}
	}()
	sub, err := c.conn.QueueSubscribeSync(subject, "instances")
	if err != nil {
		return err
	}
	// From now on it can be asked; while the agent is away, from when it is back.
	if c.conn.IsConnected() {
		_ = c.conn.FlushTimeout(attempt)
	}
	return c.start(func() {
		defer sub.Unsubscribe() // so that who asks after Close is told that nobody is there
		for {
			m, err := sub.NextMsgWithContext(c.closing)
			if errors.Is(err, nats.ErrSlowConsumer) {
				continue // what was dropped is asked again, or times out
			}
			if err != nil {
				return
			}
			f(m)
		}
	})
}

// take notes that somebody answers a subject from now on.
func (c *Client) take(subject string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken[subject] {
		return errors.New("somebody answers it already")
	}
	c.taken[subject] = true
	return nil
}

// Conn is the NATS connection that all of this goes over, for the subjects that
// the definition allows the module beyond its own. It stays the Client's: do not
// close it, and do not touch its Opts.
func (c *Client) Conn() *nats.Conn { return c.conn }

// Close ends the contexts of the functions that were given to OnInput and
// OnMethod, waits for those that run, and ends the connection. It must not be
// called from one of them, nor from one given to OnDesired.
func (c *Client) Close() {
	c.mu.Lock()
	c.end()
	c.mu.Unlock()
	c.running.Wait()
	if c.conn.IsConnected() {
		_ = c.conn.FlushTimeout(flushBefore) // the last answers
	}
	c.conn.Close()
	c.give(nats.ErrConnectionClosed, "")
}
