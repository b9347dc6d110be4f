package gitsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/tidemark-edge/tidemark/schema"
)

const (
	sshDialTimeout = 30 * time.Second // connection and handshake
	maxStderrBytes = 4 << 10
)

// sshRemote runs git-upload-pack on an SSH server. It is ours and not go-git's
// because that one reads the user's ~/.ssh/config, takes any agent's keys, and
// cannot be interrupted during the handshake.
type sshRemote struct {
	repo schema.Repository
	at   location
	dog  *watchdog
	conn *sshConn // the open connection; nil once its one pack was asked for
	refs *packp.AdvRefs
}

func openSSH(ctx context.Context, repo schema.Repository, at location, dog *watchdog) (remote, error) {
	r := &sshRemote{repo: repo, at: at, dog: dog}
	return r, r.connect(ctx)
}

func (r *sshRemote) connect(ctx context.Context) error {
	config, err := sshConfig(r.repo, r.at)
	if err != nil {
		return err
	}
	r.conn, err = startUploadPack(ctx, r.at, config, r.dog)
	return err
}

// sshConfig reads the key and the known hosts. A host that is not in the file
// is refused: there is nobody at a device to ask.
func sshConfig(repo schema.Repository, at location) (*ssh.ClientConfig, error) {
	key, err := readSecret("sshKeyFile", repo.SSHKeyFile)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(key)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, fmt.Errorf("read sshKeyFile %s: it has a passphrase, and nobody is here to enter it", repo.SSHKeyFile)
	case err != nil:
		return nil, fmt.Errorf("read sshKeyFile %s: not a private key in OpenSSH or PEM format", repo.SSHKeyFile)
	}
	known, err := knownhosts.New(repo.KnownHostsFile)
	if err != nil {
		return nil, fmt.Errorf("read knownHostsFile: %w", err)
	}
	return &ssh.ClientConfig{
		User:              at.user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyAlgorithms: knownAlgorithms(known, at.host),
		HostKeyCallback: func(host string, addr net.Addr, key ssh.PublicKey) error {
			return explainHostKey(known(host, addr, key), at.host, key, repo.KnownHostsFile)
		},
	}, nil
}

// explainHostKey says which of the two cases it is: nobody knows the host, or
// it is not the host that it was.
func explainHostKey(err error, host string, key ssh.PublicKey, file string) error {
	var unknown *knownhosts.KeyError
	if !errors.As(err, &unknown) {
		return err
	}
	print := ssh.FingerprintSHA256(key)
	if len(unknown.Want) == 0 {
		return fmt.Errorf("host %s is not in %s; it offers %s: add its key if that is right", host, file, print)
	}
	return fmt.Errorf("host %s offers the key %s, and %s has another one: refused", host, print, file)
}

// knownAlgorithms restricts the host key algorithms to those that the file has
// a key for; else a server would offer its favourite and seem to be another.
func knownAlgorithms(known ssh.HostKeyCallback, host string) []string {
	var miss *knownhosts.KeyError
	if err := known(host, &net.TCPAddr{IP: net.IPv4zero}, noKey{}); !errors.As(err, &miss) {
		return nil
	}
	var algorithms []string
	for _, k := range miss.Want {
		switch t := k.Key.Type(); t {
		case ssh.KeyAlgoRSA:
			algorithms = append(algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		default:
			algorithms = append(algorithms, t)
		}
	}
	slices.Sort(algorithms)
	return slices.Compact(algorithms)
}

// noKey is a key that no host has.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

func (r *sshRemote) tip(_ context.Context, branch string) (plumbing.Hash, error) {
	if err := r.advertise(); err != nil {
		return plumbing.ZeroHash, err
	}
	return branchTip(r.refs, branch)
}

func (r *sshRemote) advertise() error {
	refs := packp.NewAdvRefs()
	err := refs.Decode(&metered{Reader: r.conn.stdout, dog: r.dog, max: maxRefsBytes, what: "refs"})
	var line *pktline.ErrorLine
	switch {
	case errors.Is(err, packp.ErrEmptyAdvRefs):
		return errNoBranch
	case errors.Is(err, packp.ErrEmptyInput):
		return fmt.Errorf("%s", r.conn.complaint())
	case errors.As(err, &line):
		return clean(line, nil)
	case err != nil:
		return clean(err, nil)
	case refs.IsEmpty():
		return errNoBranch
	}
	transport.FilterUnsupportedCapabilities(refs.Capabilities)
	r.refs = refs
	return nil
}

func (r *sshRemote) filters() bool { return r.refs.Capabilities.Supports(capability.Filter) }

// pack asks for objects; each connection gives one pack.
func (r *sshRemote) pack(ctx context.Context, req request) (io.ReadCloser, error) {
	if r.conn == nil {
		if err := r.connect(ctx); err != nil {
			return nil, err
		}
		if err := r.advertise(); err != nil {
			return nil, err
		}
	}
	conn := r.conn
	r.conn = nil
	upload, err := req.upload(r.refs.Capabilities)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if err := conn.send(upload); err != nil {
		conn.Close()
		return nil, clean(err, nil)
	}
	res := packp.NewUploadPackResponse(upload)
	if err := res.Decode(conn); err != nil {
		conn.Close()
		return nil, clean(err, nil)
	}
	return unwrapSideband(upload, res), nil
}

func (r *sshRemote) close() {
	if r.conn != nil {
		r.conn.Close()
	}
}

// sshConn is one run of git-upload-pack.
type sshConn struct {
	client *ssh.Client
	stdin  io.WriteCloser
	stdout io.Reader
	dog    *watchdog
	stop   func() bool
	stderr opening
	ended  chan struct{}
}

func startUploadPack(ctx context.Context, at location, config *ssh.ClientConfig, dog *watchdog) (*sshConn, error) {
	dialing, cancel := context.WithTimeout(ctx, sshDialTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(dialing, "tcp", at.host)
	if err != nil {
		return nil, err
	}
	// A connection knows no context, so it ends with it.
	unguard := context.AfterFunc(dialing, func() { raw.Close() })
	defer unguard()
	conn, channels, requests, err := ssh.NewClientConn(raw, at.host, config)
	if err != nil {
		raw.Close()
		return nil, clean(err, nil)
	}
	c := &sshConn{client: ssh.NewClient(conn, channels, requests), dog: dog, ended: make(chan struct{})}
	c.stop = context.AfterFunc(ctx, func() { c.client.Close() })
	if err := c.start(at); err != nil {
		c.Close()
		return nil, clean(err, nil)
	}
	return c, nil
}

func (c *sshConn) start(at location) error {
	session, err := c.client.NewSession()
	if err != nil {
		return err
	}
	if c.stdin, err = session.StdinPipe(); err != nil {
		return err
	}
	if c.stdout, err = session.StdoutPipe(); err != nil {
		return err
	}
	session.Stderr = &c.stderr
	// The far side runs a shell over this: the path comes from the device's
	// owner, and is one quoted word whatever it holds.
	if err := session.Start("git-upload-pack '" + strings.ReplaceAll(at.path, "'", `'\''`) + "'"); err != nil {
		return err
	}
	go func() {
		defer close(c.ended)
		_ = session.Wait() // what it says is read from stdout and stderr
	}()
	return nil
}

func (c *sshConn) send(upload *packp.UploadPackRequest) error {
	if err := upload.UploadRequest.Encode(c.stdin); err != nil {
		return err
	}
	if err := upload.UploadHaves.Encode(c.stdin, true); err != nil {
		return err
	}
	if err := pktline.NewEncoder(c.stdin).EncodeString("done\n"); err != nil {
		return err
	}
	return c.stdin.Close()
}

func (c *sshConn) Read(p []byte) (int, error) {
	n, err := c.stdout.Read(p)
	c.dog.progress(n)
	return n, err
}

// Close ends the connection. A server that waits for a request ends by that.
func (c *sshConn) Close() error {
	c.stop()
	return c.client.Close()
}

// complaint is what the server wrote beside the protocol.
func (c *sshConn) complaint() string {
	select {
	case <-c.ended:
	case <-time.After(time.Second):
	}
	if said := c.stderr.text(); said != "" {
		return "the server says: " + said
	}
	return "the server closed the connection without an answer"
}

// opening keeps the first bytes of a stream and drops the rest.
type opening struct {
	mu  sync.Mutex
	buf []byte
}

func (t *opening) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p[:min(len(p), maxStderrBytes-len(t.buf))]...)
	return len(p), nil
}

func (t *opening) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return printable(string(t.buf), 500)
}
