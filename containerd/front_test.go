package containerd_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// front stands before a registry, counts what is asked and spoils answers.
type front struct {
	address string // its host:port

	mu     sync.Mutex
	asked  []string                                      // "GET /v2/… Range"
	spoil  func(r *http.Response, layer bool)            // changes an answer; nil leaves it
	refuse func(http.ResponseWriter, *http.Request) bool // answers in the registry's place
}

func newFront(t testing.TB, registry string) *front {
	f := &front{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry})
	proxy.ModifyResponse = func(r *http.Response) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.spoil != nil {
			f.spoil(r, strings.Contains(r.Request.URL.Path, "/blobs/") && r.ContentLength > 100<<10)
		}
		return nil
	}
	proxy.ErrorLog = nil
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked = append(f.asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Range"))
		refuse := f.refuse
		f.mu.Unlock()
		if refuse != nil && refuse(w, r) {
			return
		}
		defer func() {
			if e := recover(); e != nil && e != http.ErrAbortHandler {
				panic(e)
			}
		}()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	f.address = strings.TrimPrefix(server.URL, "http://")
	return f
}

// set changes how the front behaves, and forgets what was asked.
func (f *front) set(spoil func(*http.Response, bool), refuse func(http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spoil, f.refuse, f.asked = spoil, refuse, nil
}

// questions are what was asked since set.
func (f *front) questions() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

// cut ends a body after n bytes, as a broken link does.
type cut struct {
	io.ReadCloser
	n int
}

func (c *cut) Read(p []byte) (int, error) {
	if c.n == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.n)])
	c.n -= n
	return n, err
}

// flip changes the first byte of a body.
type flip struct {
	io.ReadCloser
	done bool
}

func (f *flip) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if n > 0 && !f.done {
		p[0], f.done = p[0]^1, true
	}
	return n, err
}
