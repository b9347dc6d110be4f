package gitsource

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
)

const (
	maxRefsBytes  = 32 << 20 // the list of refs: some 400,000 of them
	maxErrorBytes = 16 << 10 // what a server says beside an error status
)

// tlsSessions lets a poll resume the TLS session of the one before.
var tlsSessions = tls.NewLRUClientSessionCache(8)

// httpRemote speaks Git's smart HTTP protocol. go-git follows redirects on the
// first request only, never from https to http, and leaves the credentials
// behind when one leads to another origin (CVE-2026-41506).
type httpRemote struct {
	session transport.UploadPackSession
	refs    *packp.AdvRefs
	client  *http.Transport
	secrets []string
	limits  Limits
}

func openHTTP(repo schema.Repository, at location, dog *watchdog, limits Limits) (remote, error) {
	auth, secrets, err := httpAuth(repo.TokenFile)
	if err != nil {
		return nil, err
	}
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: tlsSessions}
	if repo.CAFile != "" {
		if base.TLSClientConfig.RootCAs, err = readCertificates(repo.CAFile); err != nil {
			return nil, err
		}
		base.TLSClientConfig.ClientSessionCache = nil // sessions belong to the trust they were made under
	}
	client := githttp.NewClient(&http.Client{Transport: &boundedTransport{base: base, dog: dog, limits: limits}})
	endpoint, err := transport.NewEndpoint(at.url)
	if err != nil {
		return nil, clean(err, secrets)
	}
	var method transport.AuthMethod
	if auth != nil {
		method = auth
	}
	session, err := client.NewUploadPackSession(endpoint, method)
	if err != nil {
		return nil, clean(err, secrets)
	}
	return &httpRemote{session: session, client: base, secrets: secrets, limits: limits}, nil
}

// httpAuth reads "token" or "user:password". A token goes as the password of
// basic authentication, which GitHub, GitLab, Gitea and Azure DevOps take under
// any user name.
func httpAuth(file string) (*githttp.BasicAuth, []string, error) {
	if file == "" {
		return nil, nil, nil
	}
	raw, err := readSecret("tokenFile", file)
	if err != nil {
		return nil, nil, err
	}
	token := string(bytes.TrimSpace(raw))
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return nil, nil, fmt.Errorf("read tokenFile %s: want one line, a token or user:password", file)
	}
	user, password, found := strings.Cut(token, ":")
	if !found {
		user, password = "x-access-token", token
	}
	auth := &githttp.BasicAuth{Username: user, Password: password}
	probe := http.Request{Header: http.Header{}}
	auth.SetAuth(&probe)
	encoded := strings.TrimPrefix(probe.Header.Get("Authorization"), "Basic ")
	return auth, []string{encoded, password}, nil
}

func readCertificates(file string) (*x509.CertPool, error) {
	raw, err := durable.Read(file, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("read caFile: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("read caFile %s: no PEM certificate in it", file)
	}
	return pool, nil
}

func (r *httpRemote) tip(ctx context.Context, branch string) (plumbing.Hash, error) {
	refs, err := r.session.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return plumbing.ZeroHash, errNoBranch
	}
	if err != nil {
		return plumbing.ZeroHash, clean(err, r.secrets)
	}
	r.refs = refs
	return branchTip(refs, branch)
}

func (r *httpRemote) filters() bool { return r.refs.Capabilities.Supports(capability.Filter) }

func (r *httpRemote) pack(ctx context.Context, req request) (io.ReadCloser, error) {
	upload, err := req.upload(r.refs.Capabilities)
	if err != nil {
		return nil, err
	}
	res, err := r.session.UploadPack(ctx, upload)
	if err != nil {
		return nil, clean(err, r.secrets)
	}
	return unwrapSideband(upload, res), nil
}

func (r *httpRemote) close() { r.client.CloseIdleConnections() }

// boundedTransport bounds what a response may hold, decompressed, and reports
// its progress.
type boundedTransport struct {
	base   http.RoundTripper
	dog    *watchdog
	limits Limits
}

func (t *boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	m := &metered{Reader: res.Body, dog: t.dog, max: t.limits.PackBytes + t.limits.PackBytes/8 + 1<<20, what: "a pack"}
	switch {
	case res.StatusCode >= 300:
		m.Reader = io.LimitReader(res.Body, maxErrorBytes)
	case strings.HasSuffix(req.URL.Path, "/info/refs"):
		m.max, m.what = maxRefsBytes, "refs"
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{m, res.Body}
	return res, nil
}
