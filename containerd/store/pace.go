package store

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// pace is a transport whose responses must keep coming. A download has no
// deadline, because links are slow and images large; but one that stands
// still, or only trickles, fails, so that it can be tried again.
type pace struct {
	base   http.RoundTripper
	window time.Duration // of waiting for the registry; time that we take to write does not count
	bytes  int64         // that must come in each window
}

// Slower than the slowest link that is of any use: GPRS brings 30 times this.
const (
	paceWindow = 2 * time.Minute
	paceBytes  = 16 << 10
)

var errStalled = errors.New("the registry stalls")

func (p pace) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := p.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &pacedBody{pace: p, body: resp.Body}
	return resp, nil
}

type pacedBody struct {
	pace
	body    io.ReadCloser
	waited  time.Duration // in this window
	got     int64         // in this window
	stalled atomic.Bool
}

func (b *pacedBody) Read(buf []byte) (int, error) {
	began := time.Now()
	timer := time.AfterFunc(b.window-b.waited, func() {
		b.stalled.Store(true)
		b.body.Close() // the only way to end a Read
	})
	n, err := b.body.Read(buf)
	timer.Stop()
	if b.stalled.Load() {
		return n, fmt.Errorf("%w: fewer than %d bytes in %v", errStalled, b.bytes, b.window)
	}
	b.waited += time.Since(began)
	b.got += int64(n)
	if b.got >= b.bytes || b.waited >= b.window {
		b.waited, b.got = 0, 0
	}
	return n, err
}

func (b *pacedBody) Close() error { return b.body.Close() }
