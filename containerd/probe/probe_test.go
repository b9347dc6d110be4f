package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tidemark-edge/tidemark/schema"
)

// plain dials this machine's own loopback.
func plain(ctx context.Context, port int) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// serve runs a module that answers over HTTP, and returns its port.
func serve(t *testing.T, handler http.HandlerFunc) int {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}

// listen runs a module that does with each connection what talk does.
func listen(t *testing.T, talk func(net.Conn)) int {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); talk(conn) }()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// closed is a port at which nobody listens.
func closed(t *testing.T) int {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestHTTP(t *testing.T) {
	var elsewhere int
	other := serve(t, func(w http.ResponseWriter, r *http.Request) { elsewhere++ })
	t.Setenv("HTTP_PROXY", fmt.Sprintf("http://127.0.0.1:%d", other))
	t.Setenv("http_proxy", fmt.Sprintf("http://127.0.0.1:%d", other))
	port := serve(t, func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.URL.Query().Get("status"))
		switch {
		case r.URL.Path == "/health" && r.Method == "GET" && status >= 200:
			w.Header().Set("Location", fmt.Sprintf("http://127.0.0.1:%d/", other))
			w.WriteHeader(status)
			io.WriteString(w, "out of\r\n\torder\x00\x1b[31m "+strings.Repeat("é", 1000))
		case r.URL.Path != "/":
			w.WriteHeader(http.StatusNotFound)
		}
	})
	base := fmt.Sprintf("GET http://127.0.0.1:%d", port)
	for path, want := range map[string]string{
		"":                   "",
		"/":                  "",
		"/health?status=200": "",
		"/health?status=204": "",
		"/health?status=301": "", // and not followed
		"/health?status=399": "",
		"/health?status=400": base + "/health?status=400: status 400: out of order [31m éé",
		"/health?status=503": base + "/health?status=503: status 503: out of order [31m éé",
		"/none":              base + "/none: status 404",
		"none":               base + "none: its path is none",
		"@evil.example/":     base + "@evil.example/: its path is none",
		"/%zz":               base + "/%zz: its path is none",
		"/\x00":              base + "/\x00: its path is none",
	} {
		err := HTTP(t.Context(), plain, schema.HTTPProbe{Port: port, Path: path})
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", path, err, want)
		}
		if err != nil && (len(err.Error()) > 200 || !utf8.ValidString(err.Error())) {
			t.Errorf("%q: the error has %d bytes: %q", path, len(err.Error()), err)
		}
	}
	if elsewhere > 0 {
		t.Errorf("was led elsewhere %d times", elsewhere)
	}
}

func TestHTTPFromModulesThatMisbehave(t *testing.T) {
	until := make(chan struct{})
	defer close(until)
	for name, c := range map[string]struct {
		talk func(net.Conn)
		want string
	}{
		"hangs up":          {func(c net.Conn) {}, "it hung up without an answer"},
		"says nothing":      {func(c net.Conn) { <-until }, "no answer"},
		"speaks otherwise":  {func(c net.Conn) { io.WriteString(c, "SSH-2.0-dropbear\r\n"); io.Copy(io.Discard, c) }, "malformed HTTP"},
		"a header for ever": {func(c net.Conn) { flood(c, "HTTP/1.1 200 OK\r\n", "X: y\r\n") }, "its header is longer than 16384 bytes"},
		"a body for ever":   {func(c net.Conn) { flood(c, "HTTP/1.1 500 No\r\n\r\n", "no ") }, "status 500: no no"},
		"announces":         {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 103 Soon\r\n\r\nHTTP/1.1 418 No\r\n\r\n") }, "status 418"},
		"announces only":    {func(c net.Conn) { flood(c, "", "HTTP/1.1 103 Soon\r\n\r\n") }, "its header is longer"},
		"begins to answer":  {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\nno"); <-until }, "status 500: no"},
	} {
		port := listen(t, c.talk)
		ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("no answer within 300ms"))
		err := HTTP(ctx, plain, schema.HTTPProbe{Port: port, Path: "/"})
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func flood(c net.Conn, first, more string) {
	_, err := io.WriteString(c, first)
	for err == nil {
		_, err = io.WriteString(c, strings.Repeat(more, 100))
	}
}

func TestTCP(t *testing.T) {
	port := listen(t, func(net.Conn) {})
	if err := TCP(t.Context(), plain, schema.TCPProbe{Port: port}); err != nil {
		t.Error(err)
	}
	port = closed(t)
	want := fmt.Sprintf("connect 127.0.0.1:%d: connection refused", port)
	if err := TCP(t.Context(), plain, schema.TCPProbe{Port: port}); err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
	want = fmt.Sprintf("GET http://127.0.0.1:%d/: connection refused", port)
	if err := HTTP(t.Context(), plain, schema.HTTPProbe{Port: port}); err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
}

// Nothing is kept of a thousand probes.
func TestNothingIsLeft(t *testing.T) {
	port := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })
	before := runtime.NumGoroutine()
	for range 1000 {
		if err := HTTP(t.Context(), plain, schema.HTTPProbe{Port: port}); err == nil {
			t.Fatal("a teapot is healthy")
		}
	}
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before+10; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, before %d", runtime.NumGoroutine(), before)
		}
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a", "a\nb", "\xff\xfe", strings.Repeat("é", 200), "\u202e\u2028\x1b[0m"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		for _, line := range []string{Quote(answer), LastLine(answer)} {
			if len(line) > MaxAnswer || !utf8.ValidString(line) || strings.ContainsAny(line, "\n\r\x00\x1b") {
				t.Errorf("%q", line)
			}
		}
	})
}
