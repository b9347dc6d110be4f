package gitsource

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// unreachable wants Fetch to fail for the network's sake, with words and
// without secrets.
func unreachable(t testing.TB, s *Source, words []string, secrets ...string) {
	t.Helper()
	_, _, err := s.Fetch(t.Context())
	var u *UnreachableError
	if !errors.As(err, &u) {
		t.Fatalf("fetch: %v, want it unreachable", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	for _, secret := range secrets {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q tells the secret %q", err, secret)
		}
	}
}

func write(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNoChangeIsOneRoundTrip(t *testing.T) {
	g := harness.NewGit(t)
	one := g.Commit(file("1"))
	web, shell := serveHTTP(t, g, nil), serveSSH(t, g)
	for name, c := range map[string]struct {
		repo  schema.Repository
		count *atomic.Int64
		first int64 // what bringing one commit takes
	}{
		"http": {off(web.URL), &web.requests, 2},
		"ssh":  {shell.configure(off("")), &shell.connections, 1},
	} {
		s := open(t, c.repo)
		fetch(t, s, one, "1")
		if n := c.count.Swap(0); n != c.first {
			t.Errorf("%s: %d round trips for the first fetch, want %d", name, n, c.first)
		}
		fetch(t, s, one, "1")
		if n := c.count.Swap(0); n != 1 {
			t.Errorf("%s: %d round trips without a change, want 1", name, n)
		}
	}
	s := open(t, off(web.URL))
	fetch(t, s, one, "1")
	web.requests.Store(0)
	fetch(t, s, g.Commit(file("2")), "2")
	if n := web.requests.Load(); n != 2 {
		t.Errorf("%d requests for one more commit, want 2", n)
	}
}

// A refused tip costs one round trip as well, as long as it stays the tip.
func TestRefusedTipIsNotFetchedAgain(t *testing.T) {
	g := harness.NewGit(t)
	web := serveHTTP(t, g, nil)
	s := open(t, signed(web.URL))
	bad := g.Commit(file("1"))
	refuses(t, s, bad, "no signature")
	web.requests.Store(0)
	refuses(t, s, bad, "no signature")
	if n := web.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestHTTPCredentials(t *testing.T) {
	g := harness.NewGit(t)
	one := g.Commit(file("1"))
	const secret = "s3cret/+token"
	web := serveHTTP(t, g, func(w http.ResponseWriter, r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		if user != "" && password == secret {
			return true
		}
		// A hostile server repeats what it got.
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "no: "+r.Header.Get("Authorization")+" "+password)
		return false
	})
	for _, content := range []string{secret, "device:" + secret, secret + "\n"} {
		repo := off(web.URL)
		repo.TokenFile = write(t, content)
		fetch(t, open(t, repo), one, "1")
	}
	unreachable(t, open(t, off(web.URL)), []string{"tokenFile"})
	repo := off(web.URL)
	repo.TokenFile = write(t, "user:wrong-secret")
	unreachable(t, open(t, repo), []string{"tokenFile"}, "wrong-secret",
		base64.StdEncoding.EncodeToString([]byte("user:wrong-secret")))
	for _, bad := range []string{"", "two\nlines"} {
		repo.TokenFile = write(t, bad)
		unreachable(t, open(t, repo), []string{"want one line"})
	}
	repo.TokenFile = filepath.Join(t.TempDir(), "missing")
	unreachable(t, open(t, repo), []string{"read tokenFile"})
}

func TestCredentialsAreReadAfresh(t *testing.T) {
	g := harness.NewGit(t)
	one := g.Commit(file("1"))
	var want atomic.Value
	want.Store("old")
	web := serveHTTP(t, g, func(w http.ResponseWriter, r *http.Request) bool {
		if _, password, _ := r.BasicAuth(); password == want.Load() {
			return true
		}
		w.WriteHeader(http.StatusForbidden)
		return false
	})
	repo := off(web.URL)
	repo.TokenFile = write(t, "old")
	s := open(t, repo)
	fetch(t, s, one, "1")
	want.Store("new")
	unreachable(t, s, []string{"credentials"})
	if err := os.WriteFile(repo.TokenFile, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	fetch(t, s, one, "1")
}

func TestTLS(t *testing.T) {
	g := harness.NewGit(t)
	one := g.Commit(file("1"))
	web := newHTTPServer(t, g, nil)
	web.server.StartTLS()
	url := web.server.URL + "/fleet/.git"
	unreachable(t, open(t, off(url)), []string{"certificate"})
	repo := off(url)
	repo.CAFile = write(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.server.Certificate().Raw})))
	repo.TokenFile = write(t, "token")
	fetch(t, open(t, repo), one, "1")
	repo.CAFile = write(t, "nothing")
	unreachable(t, open(t, repo), []string{"no PEM certificate"})
}

// CVE-2026-41506: credentials must not follow a redirect to another host.
func TestRedirectToAnotherHostGetsNoCredentials(t *testing.T) {
	g := harness.NewGit(t)
	one := g.Commit(file("1"))
	var leaked atomic.Int64
	other := serveHTTP(t, g, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			leaked.Add(1)
		}
		return true
	})
	var asked atomic.Int64
	first := serveHTTP(t, g, func(w http.ResponseWriter, r *http.Request) bool {
		if _, password, _ := r.BasicAuth(); password == "token" {
			asked.Add(1)
		}
		if strings.HasPrefix(r.URL.Path, "/moved/") { // within the same host they do
			http.Redirect(w, r, "/fleet/"+strings.TrimPrefix(r.URL.RequestURI(), "/moved/"), http.StatusMovedPermanently)
			return false
		}
		if r.URL.Query().Has("service") && strings.HasPrefix(r.URL.Path, "/fleet/away") {
			http.Redirect(w, r, other.server.URL+strings.Replace(r.URL.RequestURI(), "/away", "", 1), http.StatusFound)
			return false
		}
		return true
	})
	repo := off(first.server.URL + "/fleet/away/.git")
	repo.TokenFile = write(t, "token")
	fetch(t, open(t, repo), one, "1")
	if asked.Load() == 0 || other.requests.Load() != 2 || leaked.Load() != 0 {
		t.Errorf("asked %d, elsewhere %d, of these with credentials %d", asked.Load(), other.requests.Load(), leaked.Load())
	}
	asked.Store(0)
	repo.URL = first.server.URL + "/moved/.git"
	fetch(t, open(t, repo), one, "1")
	if n := asked.Load(); n != 3 {
		t.Errorf("%d requests with credentials within the host, want 3", n)
	}
}

// cutter is a TCP proxy that cuts each connection after so many bytes of
// answer; 0 is never.
type cutter struct {
	addr  string
	after atomic.Int64
	cuts  atomic.Int64
}

func newCutter(t testing.TB, target string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &cutter{addr: l.Addr().String()}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go c.pass(in, target)
		}
	}()
	return c
}

func (c *cutter) pass(in net.Conn, target string) {
	defer in.Close()
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer out.Close()
	go io.Copy(out, in)
	if n := c.after.Load(); n > 0 {
		io.CopyN(in, out, n)
		c.cuts.Add(1)
		return
	}
	io.Copy(in, out)
}

func TestTransferThatIsCutAndThenCompletes(t *testing.T) {
	g := harness.NewGit(t)
	noise := make([]byte, 200<<10)
	for i := range noise {
		noise[i] = byte(i*i>>3 ^ i>>8)
	}
	one := g.SignedCommit(map[string]string{"file": "1", "noise": string(noise)})
	web, shell := serveHTTP(t, g, nil), serveSSH(t, g)
	for name, repo := range map[string]schema.Repository{"http": signed(web.URL), "ssh": shell.configure(signed(""))} {
		t.Run(name, func(t *testing.T) {
			var proxy *cutter
			if name == "http" {
				proxy = newCutter(t, web.server.Listener.Addr().String())
				repo.URL = "http://" + proxy.addr + "/fleet/.git"
			} else {
				at, _ := parseLocation(repo.URL)
				proxy = newCutter(t, at.host)
				repo.URL = "ssh://git@" + proxy.addr + g.Dir
				key, _ := os.ReadFile(repo.KnownHostsFile)
				_, rest, _ := strings.Cut(string(key), " ")
				repo.KnownHostsFile = write(t, knownhosts.Normalize(proxy.addr)+" "+rest)
			}
			s := open(t, repo)
			for _, after := range []int64{10, 500, 3000, 20_000} {
				proxy.after.Store(after)
				unreachable(t, s, nil)
				left, err := os.ReadDir(s.current().incoming())
				if err != nil || len(left) > 0 || len(s.current().packs) > 0 {
					t.Errorf("cut after %d bytes: %v left, %v", after, left, err)
				}
			}
			if proxy.cuts.Load() < 4 {
				t.Errorf("%d cuts", proxy.cuts.Load())
			}
			proxy.after.Store(0)
			fetch(t, s, one, "1")
		})
	}
}

func TestServerThatDoesNotAnswer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts by its backlog, says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, repo := range []schema.Repository{
		off("http://" + silent.Addr().String() + "/fleet"),
		serveSSH(t, harness.NewGit(t)).configure(off("")),
	} {
		if repo.SSHKeyFile != "" {
			repo.URL = "ssh://git@" + silent.Addr().String() + "/fleet"
		}
		s := open(t, repo)
		s.Limits.Stall = 50 * time.Millisecond
		unreachable(t, s, []string{"stalled"})

		s = open(t, repo)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, _, err := s.Fetch(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("deadline: %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		if _, _, err = s.Fetch(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
}

// A byte now and then is no progress (containerd#11650 is the same fault).
func TestTrickleEnds(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "fff0") // a line of 64 KB, as it says
		for {
			if _, err := io.WriteString(w, "x"); err != nil || r.Context().Err() != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
	}))
	defer server.Close()
	s := open(t, off(server.URL+"/fleet"))
	s.Limits.Stall = 100 * time.Millisecond
	unreachable(t, s, []string{"stalled"})
}

func TestServerThatSendsNonsense(t *testing.T) {
	for name, body := range map[string]string{
		"empty":        "",
		"page":         "<html>welcome to the hotel wifi</html>",
		"flush":        "0000",
		"no service":   "001e# service=git-upload-pack\n0000",
		"bad length":   "zzzz",
		"refs cut":     "001e# service=git-upload-pack\n000000c8" + strings.Repeat("a", 40) + " refs/heads/main",
		"bad hash":     "001e# service=git-upload-pack\n0000003f" + strings.Repeat("z", 40) + " refs/heads/main\n0000",
		"error packet": "0018ERR go away, device\n0000",
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
			defer server.Close()
			_, tree, err := open(t, off(server.URL+"/fleet")).Fetch(t.Context())
			if err == nil || tree != nil {
				t.Errorf("no error")
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	unreachable(t, open(t, off("http://"+addr+"/fleet")), []string{addr, "refused"})
	repo := serveSSH(t, harness.NewGit(t)).configure(off(""))
	repo.URL = "ssh://" + addr + "/fleet"
	unreachable(t, open(t, repo), []string{addr, "refused"})
	unreachable(t, open(t, off(filepath.Join(t.TempDir(), "none"))), []string{"no Git repository"})
	unreachable(t, open(t, off("file://"+t.TempDir())), []string{"no Git repository"})
	web := serveHTTP(t, harness.NewGit(t), nil)
	unreachable(t, open(t, off(web.server.URL+"/none")), []string{"no such repository"})
}

func TestRepositoryWithSHA256(t *testing.T) {
	g := harness.NewGit(t)
	g.Dir = filepath.Join(t.TempDir(), "fleet")
	if out, err := exec.Command("git", "init", "-q", "-b", "main", "--object-format=sha256", g.Dir).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v\n%s", err, out)
	}
	g.Run("-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "--allow-empty", "-m", "One")
	for name, url := range transports(t) {
		t.Run(name, func(t *testing.T) {
			unreachable(t, open(t, url(t, g, off(""))), []string{"not supported"})
		})
	}
}
