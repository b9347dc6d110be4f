package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

// site is a device with two modules, its fleet repository behind a token, and its
// hub: all of it real processes, of this very binary.
type site struct {
	*testing.T
	dir      string // of configurations, logs and state
	runDir   string // of the agent
	hubState string
	people   string // host:port where the hub listens for them
	leafs    string // and for devices
	token    string // of the fleet repository
	password string // of the registry
	agent    *harness.Process
	hub      *harness.Process
}

const siteDevice = `package fleet

device: #device & {
	name:     "d1"
	identity: %q
	gate:     "500ms"
	routes: all: {}
	modules: {
		sensor: {
			image: %q
			twin: desired: interval: "200ms"
		}
		fixed: {
			image: %q
			twin: {desired: interval: "5s", fixed: true}
		}
	}
}
`

// newSite starts it, and waits until the device is healthy and linked.
func newSite(t *testing.T) *site {
	t.Helper()
	daemon, registry, key, git := harness.Containerd(t, "2"), harness.Registry(t), signingtest.NewKey(t), harness.NewGit(t)
	run, err := os.MkdirTemp("/dev/shm", "site")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	s := &site{T: t, dir: daemon.Dir, runDir: run, people: harness.FreeAddress(t), leafs: harness.FreeAddress(t),
		token: "ghp_" + rand.Text(), password: "device:pw" + rand.Text()}
	s.hubState = s.path("hub")
	image := harness.PushImage(t, registry, "sensor", filepath.Join(harness.Root(), "examples", "quickstart", "sensor"))
	key.Sign(t, image)
	repository := fmt.Sprintf(`{url: %q, verify: "off", poll: "1s", tokenFile: %q}`, s.serve(git), s.secret("token", s.token))
	s.write("agent.cue", fmt.Sprintf(`
device: "d1", stateDir: %q, runDir: %q
repository: %s
images: [{name: "site", match: %q, keys: [%q]}]
registries: %q: passwordFile: %q
containerd: {address: %q, runc: %q, namespace: "site"}
leaf: listen: %q
hub: url: "nats-leaf://%s"
`, s.path("state"), s.runDir, repository, registry+"/**", key.PublicFile, registry, s.secret("password", s.password),
		daemon.Address, daemon.Runc, harness.FreeAddress(t), s.leafs))
	s.write("hub.cue", fmt.Sprintf("stateDir: %q, listen: %q, leafListen: %q\nrepository: %s\n", s.hubState, s.people, s.leafs, repository))

	files, err := schema.Scaffold{Site: "x", Device: "d1"}.Files()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for name, content := range files {
		all[name] = string(content)
	}
	identity, _, _ := s.types("enroll", "--config", s.path("agent.cue"))
	identity = strings.Trim(strings.TrimPrefix(strings.TrimSpace(identity), "device: identity: "), `"`)
	all["sites/x/d1/device.cue"] = fmt.Sprintf(siteDevice, identity, image, image)
	git.Commit(all)

	s.startHub()
	s.agent = s.start("agent")
	harness.Eventually(t, func() error {
		out, _, code := s.types("status")
		if code != exitOK || !strings.Contains(out, "linked since") || strings.Contains(out, "not linked") {
			return fmt.Errorf("status exits with %d: %s", code, out)
		}
		return nil
	})
	return s
}

// part runs a part of a test.
func (s *site) part(name string, f func(*site)) {
	s.Helper()
	s.Run(name, func(t *testing.T) {
		inside := *s
		inside.T = t
		f(&inside)
	})
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, content string) string {
	s.Helper()
	if err := os.WriteFile(s.path(name), []byte(content), 0o600); err != nil {
		s.Fatal(err)
	}
	return s.path(name)
}

func (s *site) secret(name, content string) string { return s.write(name, content+"\n") }

// serve serves the repository by HTTP, to who has the token.
func (s *site) serve(g *harness.Git) string {
	program, err := exec.LookPath("git")
	if err != nil {
		s.Fatal(err)
	}
	quiet := log.New(io.Discard, "", 0)
	git := &cgi.Handler{Path: program, Args: []string{"http-backend"}, Stderr: io.Discard, Logger: quiet,
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(g.Dir), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1"}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != s.token {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		git.ServeHTTP(w, r)
	}))
	s.Cleanup(server.Close)
	return server.URL + "/" + filepath.Base(g.Dir)
}

// tidemark is a command line of this binary.
func (s *site) tidemark(ctx context.Context, args ...string) *exec.Cmd {
	s.Helper()
	link := s.path("tidemark")
	self, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	if err := os.Symlink(self, link); err != nil && !errors.Is(err, os.ErrExist) {
		s.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, link, args...)
	cmd.Env = append(os.Environ(), "TIDEMARK_RUN_DIR="+s.runDir)
	return cmd
}

// start starts a daemon, at its most talkative.
func (s *site) start(what string) *harness.Process {
	s.Helper()
	logs := s.path(what + ".logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		s.Fatal(err)
	}
	p := harness.Start(s, logs, s.tidemark(context.Background(), what, "--config", s.path(what+".cue"), "--log-level", "debug"))
	s.Cleanup(func() {
		p.Stop(syscall.SIGTERM)
		if text, err := os.ReadFile(p.Log()); s.Failed() && err == nil {
			s.Logf("%s:\n%s", what, text[max(0, len(text)-4<<10):])
		}
	})
	return p
}

// startHub starts the hub and waits until it answers people.
func (s *site) startHub() {
	s.Helper()
	s.hub = s.start("hub")
	harness.Eventually(s, func() error {
		if _, said, code := s.asks("twin", "list"); code != exitOK {
			return errors.New(said)
		}
		return nil
	})
}

// types runs a command line and returns what it prints, and its exit code.
func (s *site) types(args ...string) (out, said string, code int) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := s.tidemark(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || ctx.Err() != nil) {
		s.Fatalf("%v: %v, %v\n%s%s", args, err, exit, &stdout, &stderr)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// asks is types of what goes to the hub, as its operator.
func (s *site) asks(args ...string) (out, said string, code int) {
	s.Helper()
	return s.types(append(args, "--hub", s.people, "--creds", filepath.Join(s.hubState, "operator.nk"))...)
}

// follower is a command that goes on until it is interrupted.
type follower struct {
	site *site
	cmd  *exec.Cmd
	out  string // file with what it prints
}

// follows starts a command that asks the hub.
func (s *site) follows(args ...string) *follower {
	s.Helper()
	f := &follower{site: s, out: filepath.Join(s.TempDir(), "out")}
	file, err := os.Create(f.out)
	if err != nil {
		s.Fatal(err)
	}
	defer file.Close()
	f.cmd = s.tidemark(context.Background(), append(args, "--hub", s.people, "--creds", filepath.Join(s.hubState, "operator.nk"))...)
	f.cmd.Stdout, f.cmd.Stderr = file, file
	if err := f.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if f.cmd.ProcessState == nil {
			f.cmd.Process.Kill()
			f.cmd.Wait()
		}
	})
	return f
}

// text is what it has printed.
func (f *follower) text() string {
	text, err := os.ReadFile(f.out)
	if err != nil {
		f.site.Fatal(err)
	}
	return string(text)
}

// says waits until it has printed that.
func (f *follower) says(what string) {
	f.site.Helper()
	harness.Eventually(f.site, func() error {
		if text := f.text(); !strings.Contains(text, what) {
			return fmt.Errorf("%v does not say %q:\n%s", f.cmd.Args[1:], what, text[max(0, len(text)-2000):])
		}
		return nil
	})
}

// interrupt ends it as a person does, and returns its exit code.
func (f *follower) interrupt() int {
	f.site.Helper()
	if err := f.cmd.Process.Signal(os.Interrupt); err != nil {
		f.site.Fatal(err)
	}
	_ = f.cmd.Wait() // the exit code says it
	return f.cmd.ProcessState.ExitCode()
}
