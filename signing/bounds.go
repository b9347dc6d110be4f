package signing

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

const (
	maxRequests = 256      // in one conversation; two for each candidate, and a few to log in
	maxResponse = 4 << 20  // bytes of one answer
	maxTraffic  = 64 << 20 // bytes of all answers of one conversation
)

// bounds is the transport of one conversation. It ends what goes on for too
// long, and keeps to the scheme that the device's configuration asks for: the
// client library by itself would fall back to plain HTTP for private addresses.
type bounds struct {
	next     http.RoundTripper
	host     string // the registry
	plain    bool   // it speaks plain HTTP
	requests atomic.Int64
	traffic  atomic.Int64
	failure  atomic.Pointer[error] // of the latest connection that failed
}

// errScheme says that the client library tried the scheme that is not
// configured.
var errScheme = errors.New("is not what the device's configuration says")

// told is err as a person needs it. The library tries http and https and tells
// of both; where the one that is configured did not connect, that is all there
// is to say.
func (b *bounds) told(err error) error {
	failure := b.failure.Load()
	if failure == nil || !errors.Is(err, errScheme) {
		return err
	}
	if op, ok := errors.AsType[*net.OpError](*failure); ok && op.Op == "dial" {
		return *failure
	}
	return fmt.Errorf("%w (plainHttp: %t)", *failure, b.plain) // which may be the cause
}

// RoundTrip implements http.RoundTripper.
func (b *bounds) RoundTrip(req *http.Request) (*http.Response, error) {
	switch {
	case req.URL.Host == b.host && b.plain != (req.URL.Scheme == "http"):
		return nil, fmt.Errorf("%s to %s %w (plainHttp: %t)", req.URL.Scheme, b.host, errScheme, b.plain)
	case req.URL.Scheme != "https" && !b.plain:
		return nil, fmt.Errorf("redirect to plain HTTP at %s", req.URL.Host)
	case b.requests.Add(1) > maxRequests:
		return nil, errOverBudget
	}
	resp, err := b.next.RoundTrip(req)
	if err != nil {
		b.failure.Store(&err)
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxResponse, traffic: &b.traffic}
	return resp, nil
}

// boundedBody is the body of an answer, cut where it exceeds the bounds.
type boundedBody struct {
	io.ReadCloser
	left    int64
	traffic *atomic.Int64
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 || b.traffic.Add(int64(n)) > maxTraffic {
		return 0, errOverBudget
	}
	return n, err
}
