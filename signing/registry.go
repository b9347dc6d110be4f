package signing

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
)

const (
	maxCAFile       = 1 << 20 // a bundle of all public authorities has 200 KB
	maxPasswordFile = 4 << 10
)

// registry is one registry host: how to reach it, and the connections to it.
type registry struct {
	host         string // as the image reference says it
	plain        bool   // plain HTTP
	passwordFile string
	transport    *http.Transport
}

// newTransport makes the connections that registries share.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConnsPerHost:    2,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}
}

// newRegistry prepares the way to host over shared, or over its own transport
// where it has its own certificates.
func newRegistry(host string, config schema.Registry, shared *http.Transport) (*registry, error) {
	r := &registry{
		host:         host,
		plain:        config.PlainHTTP || config.CAFile == "" && isLoopback(host),
		passwordFile: config.PasswordFile,
		transport:    shared,
	}
	if config.CAFile == "" {
		return r, nil
	}
	if config.PlainHTTP {
		return nil, fmt.Errorf("registry %s: caFile is for TLS, and plainHttp says that there is none: remove one", host)
	}
	data, err := durable.Read(config.CAFile, maxCAFile)
	if err != nil {
		return nil, fmt.Errorf("registry %s: caFile: %w", host, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("registry %s: caFile %s: no PEM certificate in it", host, config.CAFile)
	}
	r.transport = newTransport()
	r.transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return r, nil
}

// isLoopback reports whether host[:port] is this machine.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// open starts one conversation with the registry about one repository.
func (r *registry) open(image schema.Image) (*conversation, error) {
	auth, err := r.login()
	if err != nil {
		return nil, err
	}
	var options []name.Option
	if r.plain {
		options = append(options, name.Insecure)
	}
	reg, err := name.NewRegistry(r.host, options...)
	if err != nil {
		return nil, err
	}
	bounds := &bounds{next: r.transport, host: reg.RegistryStr(), plain: r.plain}
	puller, err := remote.NewPuller(
		remote.WithTransport(bounds),
		remote.WithAuth(auth),
		remote.WithUserAgent("tidemark"),
		// The caller tries again, with its own back-off.
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
		remote.WithRetryStatusCodes(),
	)
	if err != nil {
		return nil, err
	}
	path := strings.TrimPrefix(image.Repository(), image.Registry()+"/")
	return &conversation{
		puller: puller,
		bounds: bounds,
		image:  image,
		ref:    reg.Repo(path).Digest(image.Digest()),
	}, nil
}

// login reads the password afresh, so that it can be changed in place.
func (r *registry) login() (authn.Authenticator, error) {
	if r.passwordFile == "" {
		return authn.Anonymous, nil
	}
	data, err := durable.ReadSecret(r.passwordFile, maxPasswordFile)
	if err != nil {
		return nil, fmt.Errorf("passwordFile: %w", err)
	}
	user, password, ok := strings.Cut(strings.TrimRight(string(data), "\r\n"), ":")
	if !ok || user == "" {
		return nil, fmt.Errorf("passwordFile %s: want one line, user:password", r.passwordFile)
	}
	return &authn.Basic{Username: user, Password: password}, nil
}

// errOverBudget ends a conversation that a registry draws out.
var errOverBudget = errors.New("the registry answers with more than signatures can need")
