package leaf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/netns"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
)

func TestMain(m *testing.M) {
	if os.Getenv("LEAF_TEST_CHILD") != "" {
		child()
		return
	}
	os.Exit(m.Run())
}

// child is a module's process: it does what it reads on its standard input and
// says what came of it, a line each.
func child() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var client *twin.Client
	say := func(v any, err error) {
		if err != nil {
			v = "error: " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(v)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch command, argument, _ := strings.Cut(lines.Text(), " "); command {
		case "connect":
			var err error
			client, err = twin.Connect(ctx)
			say("connected", err)
		case "report":
			version, err := client.Report(ctx, map[string]any{"said": argument})
			say(version, err)
		case "as": // with the seed of another module
			key, err := nats.NkeyOptionFromSeed(argument)
			if err == nil {
				_, err = nats.Connect(os.Getenv(twin.EnvURL), key)
			}
			say("connected", err)
		case "dial":
			_, err := net.DialTimeout("tcp", strings.TrimPrefix(os.Getenv(twin.EnvURL), "nats://"), time.Second)
			say("connected", err)
		}
	}
}

// process is a child in a network namespace of its own.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

func (s *site) process(t *testing.T, l *Leaf, module string) *process {
	t.Helper()
	dir, env, err := l.Identity(t.Context(), module, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LEAF_TEST_CHILD=1")
	for key, value := range env {
		if key == twin.EnvCreds { // where the bind mount would show it
			value = filepath.Join(dir, strings.TrimPrefix(value, ContainerDir))
		}
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	p := &process{t: t, cmd: cmd}
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	p.lines = bufio.NewScanner(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	return p
}

func (p *process) say(command string) string {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		p.t.Fatal(err)
	}
	if !p.lines.Scan() {
		p.t.Fatalf("%s: the process ended: %v", command, p.lines.Err())
	}
	return p.lines.Text()
}

func (p *process) end() {
	p.in.Close()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func TestAttach(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("other", "sensor"))
	p := s.process(t, l, "sensor")
	if got := p.say("dial"); !strings.HasPrefix(got, "error:") {
		t.Fatalf("the namespace is not its own: %s", got)
	}
	for range 3 { // idempotent
		if err := l.Attach(t.Context(), "sensor", p.cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.say("connect"); got != "connected" {
		t.Fatal(got)
	}
	if got := p.say("report hello"); got != "2" {
		t.Errorf("answer: %s", got)
	}
	if got := p.say("as " + s.seedFile("other")); !strings.Contains(got, "Authorization Violation") {
		t.Errorf("another module's seed by this module's door: %s", got)
	}
	// The agent starts anew: it attaches again, and the module carries on.
	l.Close()
	l = s.open()
	if err := l.Attach(t.Context(), "sensor", p.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if got := p.say("report again"); got != "3" {
		t.Errorf("answer after a restart: %s", got)
	}
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	free := func() bool { // for another to listen at
		return netns.Do(namespace, func() error {
			other, err := net.Listen("tcp4", s.config.Listen)
			if err == nil {
				err = other.Close()
			}
			return err
		}) == nil
	}
	if free() {
		t.Error("there is no door")
	}
	p.end()
	eventually(t, "the door is closed when the process has ended", free)
}

func TestAttachOfRemovedModuleCloses(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	p := s.process(t, l, "sensor")
	if err := l.Attach(t.Context(), "sensor", p.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if got := p.say("connect"); got != "connected" {
		t.Fatal(got)
	}
	s.declare(l, declared())
	if got := p.say("dial"); !strings.HasPrefix(got, "error:") {
		t.Errorf("the door is still open: %s", got)
	}
}

func TestAttachRefuses(t *testing.T) {
	s := newSite(t)
	l := s.open()
	if err := l.Attach(t.Context(), "sensor", os.Getpid()); err != nil {
		t.Errorf("on the device's own network there is nothing to do: %v", err)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if err := l.Attach(t.Context(), "sensor", pid); err == nil {
			t.Errorf("process %d is attached to", pid)
		}
	}
	if err := l.Attach(t.Context(), "../x", os.Getpid()); err == nil {
		t.Error("a name with a path is taken")
	}
}

func TestIdentityIsTheModulesOnly(t *testing.T) {
	s := newSite(t)
	l := s.open()
	dir, env, err := l.Identity(t.Context(), "sensor", 1000, 1001)
	if err != nil {
		t.Fatal(err)
	}
	if env[twin.EnvIdentity] != "/devices/d1/modules/sensor" || env[twin.EnvCreds] != "/run/tidemark/identity.nk" || env[twin.EnvURL] != l.ClientURL() || len(env) != 3 {
		t.Errorf("environment is %v", env)
	}
	check := func(path string, mode fs.FileMode) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != 1000 || st.Gid != 1001 || fs.FileMode(st.Mode&0o7777) != mode {
			t.Errorf("%s: owner %d:%d, mode %04o", path, st.Uid, st.Gid, st.Mode&0o7777)
		}
	}
	check(dir, 0o500)
	check(filepath.Join(dir, "identity.nk"), 0o400)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
	seed, _ := os.ReadFile(s.seedFile("sensor"))
	if err := os.Chmod(s.seedFile("sensor"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Identity(t.Context(), "sensor", 1000, 1001); err != nil {
		t.Fatal(err)
	}
	check(filepath.Join(dir, "identity.nk"), 0o400)
	if again, _ := os.ReadFile(s.seedFile("sensor")); string(again) != string(seed) {
		t.Error("the seed changed")
	}
	if _, _, err := l.Identity(t.Context(), "a/b", 0, 0); err == nil {
		t.Error("a name with a path is taken")
	}
}

func TestBrokenSeedsAreMadeAnew(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	for name, content := range map[string]string{"empty": "", "no seed": "hello", "an account's": "SAAMNIDIYYKGL24KXCVV4R7G3PGGYR3SVFHMMMMMMMMMMMMMMMMMMMMMMM", "long": strings.Repeat("S", 1<<20)} {
		if err := os.Remove(s.seedFile("sensor")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.seedFile("sensor"), []byte(content), 0o400); err != nil {
			t.Fatal(err)
		}
		s.declare(l, declared("sensor"))
		conn := s.module(l, "sensor")
		if _, err := report(t, conn, "sensor", `{"a":1}`); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		conn.Close()
	}
	if err := errors.Join(os.Remove(s.seedFile("sensor")), os.Symlink("/etc/passwd", s.seedFile("sensor"))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Identity(t.Context(), "sensor", 0, 0); err == nil {
		t.Error("a symbolic link is followed")
	}
}

// TestStateThatIsOpenToOthers is closed before anything is read from it.
func TestStateThatIsOpenToOthers(t *testing.T) {
	s := newSite(t)
	l := s.open()
	l.Close()
	state := s.config.StateDir
	for _, path := range []string{state, filepath.Join(state, "jetstream"), filepath.Join(state, "twins"), filepath.Join(state, "identity.nk")} {
		if err := os.Chmod(path, 0o777); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	s.open()
	for path, want := range map[string]fs.FileMode{
		state: 0o755, filepath.Join(state, "jetstream"): 0o700, filepath.Join(state, "twins"): 0o700,
		s.config.RunDir: 0o700, filepath.Join(s.config.RunDir, "modules"): 0o700, filepath.Join(s.config.RunDir, "operator.nk"): 0o600,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v: want %04o", path, info.Mode(), err, want)
		}
	}
}

// TestCredentialOfARunningModuleIsDeleted: somebody empties the run directory,
// and the agent starts anew. The module can never log in again, and runs on:
// that must be said.
func TestCredentialOfARunningModuleIsDeleted(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	p := s.process(t, l, "sensor")
	if err := l.Attach(t.Context(), "sensor", p.cmd.Process.Pid); err != nil || s.warned() != "" {
		t.Fatal(err, s.warned())
	}
	l.Close()
	if err := os.RemoveAll(identity.ModuleDir(s.config.RunDir, "sensor")); err != nil {
		t.Fatal(err)
	}
	l = s.open()
	if err := l.Attach(t.Context(), "sensor", p.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("(kill %d)", p.cmd.Process.Pid); !strings.Contains(s.warned(), want) {
		t.Errorf("warned %q, want %q", s.warned(), want)
	}
}
