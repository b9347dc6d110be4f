package gitsource

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// transports are the ways to reach a repository; each starts a real server
// for g, and completes the configuration.
func transports(t *testing.T) map[string]func(*testing.T, *harness.Git, schema.Repository) schema.Repository {
	return map[string]func(*testing.T, *harness.Git, schema.Repository) schema.Repository{
		"local": func(t *testing.T, g *harness.Git, repo schema.Repository) schema.Repository {
			repo.URL = g.Dir
			return repo
		},
		"http": func(t *testing.T, g *harness.Git, repo schema.Repository) schema.Repository {
			repo.URL = serveHTTP(t, g, nil).URL
			return repo
		},
		"ssh": func(t *testing.T, g *harness.Git, repo schema.Repository) schema.Repository {
			return serveSSH(t, g).configure(repo)
		},
	}
}

// httpServer is git http-backend behind net/http, counting requests.
type httpServer struct {
	URL      string
	requests atomic.Int64
	server   *httptest.Server
}

// serveHTTP serves g. gate, where there is one, sees each request first and
// says whether it is let through.
func serveHTTP(t testing.TB, g *harness.Git, gate func(http.ResponseWriter, *http.Request) bool) *httpServer {
	s := newHTTPServer(t, g, gate)
	s.server.Start()
	s.URL = s.server.URL + "/fleet/.git"
	return s
}

func newHTTPServer(t testing.TB, g *harness.Git, gate func(http.ResponseWriter, *http.Request) bool) *httpServer {
	t.Helper()
	backend := &cgi.Handler{
		Path: "/usr/bin/git",
		Args: []string{"http-backend"},
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(g.Dir), "GIT_HTTP_EXPORT_ALL=1",
			"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1"},
		Stderr: io.Discard,
		Logger: log.New(io.Discard, "", 0),
	}
	if path, err := exec.LookPath("git"); err == nil {
		backend.Path = path
	}
	s := &httpServer{}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if gate == nil || gate(w, r) {
			backend.ServeHTTP(w, r)
		}
	}))
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(s.server.Close)
	return s
}

// sshServer is an SSH server that runs git-upload-pack, and nothing else.
type sshServer struct {
	URL, keyFile, knownHosts string
	connections              atomic.Int64
}

func (s *sshServer) configure(repo schema.Repository) schema.Repository {
	repo.URL, repo.SSHKeyFile, repo.KnownHostsFile = s.URL, s.keyFile, s.knownHosts
	return repo
}

func serveSSH(t testing.TB, g *harness.Git) *sshServer {
	t.Helper()
	s := &sshServer{keyFile: harness.NewSSHKey(t, "device")}
	host := loadSigner(t, harness.NewSSHKey(t, "host"))
	allowed := loadSigner(t, s.keyFile).PublicKey()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &ssh.Server{
		Handler: runUploadPack,
		PublicKeyHandler: func(ctx ssh.Context, key ssh.PublicKey) bool {
			return ctx.User() == "git" && ssh.KeysEqual(key, allowed)
		},
	}
	server.AddHostKey(host)
	go server.Serve(countedListener{listener, &s.connections})
	t.Cleanup(func() { server.Close() })
	s.URL = fmt.Sprintf("ssh://git@%s%s", listener.Addr(), g.Dir)
	s.knownHosts = filepath.Join(t.TempDir(), "known_hosts")
	line := knownhosts.Line([]string{knownhosts.Normalize(listener.Addr().String())}, host.PublicKey())
	if err := os.WriteFile(s.knownHosts, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

type countedListener struct {
	net.Listener
	n *atomic.Int64
}

func (l countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// runUploadPack gives the command to a shell, as sshd does.
func runUploadPack(session ssh.Session) {
	if !strings.HasPrefix(session.RawCommand(), "git-upload-pack '") {
		session.Exit(127)
		return
	}
	cmd := exec.CommandContext(session.Context(), "/bin/sh", "-c", session.RawCommand())
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	cmd.Stdout, cmd.Stderr = session, session.Stderr()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		session.Exit(1)
		return
	}
	go func() { // not by cmd, which would wait for the client to end its side
		io.Copy(stdin, session)
		stdin.Close()
	}()
	if err := cmd.Run(); err != nil {
		session.Exit(128)
		return
	}
	session.Exit(0)
}

func loadSigner(t testing.TB, path string) gossh.Signer {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := gossh.ParsePrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}
