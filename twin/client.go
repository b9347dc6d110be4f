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
	EnvIdentity = "TIDEMARK_IDENTITY" // /devices/<device>/modules/<module>
	EnvCreds    = "TIDEMARK_CREDS"    // file with the NKey seed
)

// attempt is how long one request waits for its answer. A request that changes
// nothing when it is repeated is repeated until its context ends, since an
// answer can be lost when the agent restarts.
const attempt = 5 * time.Second

// Client is a module's connection to its twin and to the hub's queue. It
// outlives every restart of the agent: while that is away, calls wait until
// their context ends, and desired changes that were missed are caught up with
// when it is back. All methods may be called at the same time.
//
//	client, err := twin.Connect(ctx)
//	err = client.OnDesired(func(s twin.Section) { … })
//	version, err := client.Report(ctx, map[string]any{"temperature": 21.5})
type Client struct {
	Device string // the device that the module runs on
	Module string // the module's own name

	conn    *nats.Conn
	prefix  string
	closing context.Context // ends with Close
	end     context.CancelFunc
	watch   sync.WaitGroup

	mu        sync.Mutex
	link      context.Context // ends when the present connection is lost
	cut       context.CancelFunc
	followers []chan struct{} // each holds one value when there may be news
}

// errLost says that the connection went before the answer came.
var errLost = errors.New("connection to the agent lost before it answered")

// Connect connects a module to the leaf of its device, from TIDEMARK_URL,
// TIDEMARK_IDENTITY and TIDEMARK_CREDS. It waits for the leaf until ctx ends;
// an environment that is missing or wrong is an error at once.
func Connect(ctx context.Context) (*Client, error) {
	device, module, err := splitAddress(os.Getenv(EnvIdentity))
	if err != nil {
		return nil, err
	}
	url, creds := os.Getenv(EnvURL), os.Getenv(EnvCreds)
	if url == "" || creds == "" {
		return nil, fmt.Errorf("connect to the device: %s and %s have to be set, as Tidemark does for its modules", EnvURL, EnvCreds)
	}
	key, err := nats.NkeyOptionFromSeed(creds)
	if err != nil {
		return nil, fmt.Errorf("connect to the device: read the seed in %s: %w", creds, err)
	}
	c := &Client{Device: device, Module: module, prefix: Prefix(device, module)}
	c.closing, c.end = context.WithCancel(context.Background())
	c.link, c.cut = context.WithCancel(c.closing)
	up := make(chan struct{}, 1)
	c.conn, err = nats.Connect(url, key,
		nats.Name(module),
		nats.CustomInboxPrefix(Inbox(device, module)),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.IgnoreAuthErrorAbort(), // the agent may not have read its definitions yet
		nats.ReconnectWait(250*time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		nats.ReconnectBufSize(-1), // what cannot be sent fails, rather than be sent later unseen
		nats.ConnectHandler(func(*nats.Conn) { signal(up) }),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { c.lost() }),
		nats.ReconnectHandler(func(*nats.Conn) { c.relinked(); signal(up) }),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // nothing of ours is asynchronous
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", url, err)
	}
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

// lost ends the waiting for answers on a connection that is gone.
func (c *Client) lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut()
}

// relinked starts on a new connection: what was published meanwhile was missed.
func (c *Client) relinked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut()
	c.link, c.cut = context.WithCancel(c.closing)
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

// splitAddress takes /devices/<device>/modules/<module> apart.
func splitAddress(address string) (device, module string, err error) {
	parts := strings.Split(address, "/")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "devices" || parts[3] != "modules" || parts[2] == "" || parts[4] == "" {
		return "", "", fmt.Errorf("connect to the device: %s is %q, want /devices/<device>/modules/<module>", EnvIdentity, address)
	}
	return parts[2], parts[4], nil
}

// Get returns the whole twin of the module.
func (c *Client) Get(ctx context.Context) (Document, error) {
	data, err := c.repeat(ctx, c.prefix+".twin.get", nil)
	if err != nil {
		return Document{}, fmt.Errorf("get twin: %w", err)
	}
	if a, err := ReadAnswer(data); err != nil && a.Error != nil {
		return Document{}, fmt.Errorf("get twin: %w", err)
	}
	d, err := ReadDocument(data)
	if err != nil {
		return Document{}, err
	}
	if d.Device != c.Device || d.Module != c.Module {
		return Document{}, errors.New("get twin: the answer is another's twin")
	}
	return d, nil
}

// Report merges patch into properties.reported (RFC 7396: null deletes) and
// returns its new version, once it is on the device's disk. A patch that the
// module's definition or the limits do not allow is an *Error with the path of
// the member, and changes nothing. It is repeated until ctx ends while the
// agent is away, which does no harm: the same patch twice is the same state.
func (c *Client) Report(ctx context.Context, patch map[string]any) (uint64, error) {
	checked, e := plain(patch)
	if e != nil {
		return 0, fmt.Errorf("report: %w", e)
	}
	body := appendValue(nil, checked)
	if len(body) > MaxPatch {
		return 0, fmt.Errorf("report: %w", &Error{Code: CodeTooLarge, Message: fmt.Sprintf("patch has %d bytes, and may have %d", len(body), MaxPatch)})
	}
	data, err := c.repeat(ctx, c.prefix+".twin.reported", body)
	if err != nil {
		return 0, fmt.Errorf("report: %w", err)
	}
	a, err := ReadAnswer(data)
	if err != nil {
		return 0, fmt.Errorf("report: %w", err)
	}
	return a.Version, nil
}

// OnDesired calls f with properties.desired as they are, and again after each
// change, each version at most once and in rising order, one call at a time. A
// change that happened while the agent was away follows when it is back. The
// calls end with Close.
func (c *Client) OnDesired(f func(Section)) error {
	news := make(chan struct{}, 1)
	_, err := c.conn.Subscribe(c.prefix+".twin.desired", func(*nats.Msg) { signal(news) })
	if err != nil {
		return fmt.Errorf("watch desired: %w", err)
	}
	c.mu.Lock()
	c.followers = append(c.followers, news)
	c.mu.Unlock()
	c.watch.Go(func() { c.follow(news, f) })
	return nil
}

// follow gets the twin, then again on all news, and calls f with each desired
// version that is newer than the last.
func (c *Client) follow(news <-chan struct{}, f func(Section)) {
	called, last := false, uint64(0)
	for {
		if d, err := c.Get(c.closing); err == nil {
			if desired := d.Properties.Desired; !called || desired.Version > last {
				called, last = true, desired.Version
				f(desired)
			}
		}
		select {
		case <-c.closing.Done():
			return
		case <-news:
		}
	}
}

// Send hands a message over for the hub, and for whomever else the routes say,
// under a name of the module's choice (a DNS label). It returns when the message
// is on the device's disk: from then on it is not lost. On any other error than
// an *Error the message may have been stored all the same; sending it again can
// then store it twice.
func (c *Client) Send(ctx context.Context, name string, body []byte) error {
	msg := &nats.Msg{Subject: c.prefix + ".out." + name, Data: body}
	answer, err := c.request(ctx, msg)
	if err == nil {
		_, err = ReadAnswer(answer)
	}
	if err != nil {
		return fmt.Errorf("send %s: %w", name, err)
	}
	return nil
}

// request asks once, but waits with asking until there is somebody to ask.
func (c *Client) request(ctx context.Context, msg *nats.Msg) ([]byte, error) {
	for {
		if c.conn.IsConnected() {
			answer, err := c.ask(ctx, msg)
			if err == nil {
				return answer.Data, nil
			}
			if !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, nats.ErrReconnectBufExceeded) {
				return nil, err // else it surely reached nobody
			}
		}
		if err := c.pause(ctx); err != nil {
			return nil, err
		}
	}
}

// ask waits for an answer no longer than the connection lives that it would
// come by.
func (c *Client) ask(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	c.mu.Lock()
	link := c.link
	c.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(link, func() { cancel(errLost) })()
	answer, err := c.conn.RequestMsgWithContext(ctx, msg)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return answer, err
}

// repeat asks until there is an answer.
func (c *Client) repeat(ctx context.Context, subject string, body []byte) ([]byte, error) {
	for {
		try, cancel := context.WithTimeout(ctx, attempt)
		answer, err := c.request(try, &nats.Msg{Subject: subject, Data: body})
		cancel()
		if err == nil {
			return answer, nil
		}
		again := errors.Is(err, errLost) || errors.Is(err, context.DeadlineExceeded)
		if !again || ctx.Err() != nil || c.closing.Err() != nil {
			return nil, err
		}
	}
}

// pause waits a moment before the next look for the agent.
func (c *Client) pause(ctx context.Context) error {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.closing.Done():
		return nats.ErrConnectionClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the connection and the calls of OnDesired's functions. It must not
// be called from one of them.
func (c *Client) Close() {
	c.end()
	c.conn.Close()
	c.watch.Wait()
}
