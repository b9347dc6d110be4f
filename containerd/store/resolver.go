package store

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// Bounds on the files that a Registry names.
const (
	maxCAFile       = 1 << 20
	maxPasswordFile = 4 << 10
)

// resolver reaches the registry at host over transport, and nothing else:
// credentials go to that host only, and a registry on TLS cannot send us off it.
func (s *Store) resolver(host string, transport *http.Transport) (remotes.Resolver, error) {
	config := s.Registries[host]
	if config.CAFile != "" {
		pool, err := readCA(config.CAFile)
		if err != nil {
			return nil, fmt.Errorf("registry %s: %w", host, err)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	user, password, err := readPassword(config.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", host, err)
	}
	plain, err := docker.MatchLocalhost(host)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", host, err)
	}
	address, err := docker.DefaultHost(host)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", host, err)
	}
	client := &http.Client{Transport: pace{transport, paceWindow, paceBytes}, CheckRedirect: checkRedirect}
	registry := docker.RegistryHost{
		Client: client, Host: address, Scheme: "https", Path: "/v2", Capabilities: docker.HostCapabilityPull,
		Authorizer: docker.NewDockerAuthorizer(docker.WithAuthClient(client), docker.WithAuthCreds(func(asked string) (string, string, error) {
			if asked != address {
				return "", "", nil
			}
			return user, password, nil
		})),
	}
	if config.PlainHTTP || plain && config.CAFile == "" {
		registry.Scheme = "http"
	}
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: func(string) ([]docker.RegistryHost, error) { return []docker.RegistryHost{registry}, nil },
	}), nil
}

var errRedirect = errors.New("the registry redirects")

// checkRedirect lets a registry send us to its store, without what
// authenticates us (CVE-2026-41506), and not off TLS.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return fmt.Errorf("%w in circles", errRedirect)
	}
	first := via[0].URL
	if first.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("%w to %s, which is not TLS", errRedirect, req.URL.Host)
	}
	if req.URL.Host != first.Host {
		req.Header.Del("Authorization")
	}
	return nil
}

func readCA(file string) (*x509.CertPool, error) {
	b, err := durable.Read(file, maxCAFile)
	if err != nil {
		return nil, fmt.Errorf("caFile: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("caFile %s: no certificate in it; want PEM", file)
	}
	return pool, nil
}

// readPassword reads "user:password"; no file is no password.
func readPassword(file string) (user, password string, err error) {
	if file == "" {
		return "", "", nil
	}
	b, err := durable.ReadSecret(file, maxPasswordFile)
	if err != nil {
		return "", "", fmt.Errorf("passwordFile: %w", err)
	}
	user, password, ok := strings.Cut(strings.TrimRight(string(b), "\r\n"), ":")
	if !ok || user == "" {
		return "", "", fmt.Errorf("passwordFile %s: want user:password", file)
	}
	return user, password, nil
}
