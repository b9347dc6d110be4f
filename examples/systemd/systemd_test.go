// Package systemd has the units that run Tidemark under systemd.
package systemd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

const installed = "/usr/local/bin/tidemark" // where the units look for the program

var units = []string{"tidemark-agent.service", "tidemark-hub.service"}

// TestVerify has systemd read the units: no unknown setting, no wrong value.
func TestVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatalf("%v: install systemd; it need not run", err)
	}
	program, err := os.Executable() // any will do
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range units {
		unit := strings.ReplaceAll(read(t, name), installed, program)
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(unit), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
		// It reads other units along, about which it may have its own complaints;
		// an unknown setting of ours is one, and no error.
		if err != nil || strings.Contains(string(out), name) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestNotify runs what the units run, as systemd would: told that it is ready,
// it ends it. The agent has no containerd, no hub and no network to ask, and
// neither has a commit yet.
func TestNotify(t *testing.T) {
	program, git := build(t), harness.NewGit(t)
	configs := map[string]string{
		"tidemark-agent.service": `
			device: "hannover01", stateDir: %[1]q, runDir: %[2]q
			repository: {url: %[3]q, verify: "off"}
			images: []
			hostNetwork: []
			containerd: address: %[4]q
			leaf: listen: "127.0.0.1:0"`,
		"tidemark-hub.service": `
			stateDir: %[1]q
			repository: {url: %[3]q, verify: "off"}
			listen: "127.0.0.1:0", leafListen: "127.0.0.1:0"`,
	}
	for _, name := range units {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			config := filepath.Join(dir, "config.cue")
			content := fmt.Sprintf(configs[name], filepath.Join(dir, "state"), memory(t), git.URL(), filepath.Join(dir, "no-containerd"))
			if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			s := start(t, command(t, name, program, config))
			s.hears("READY=1")
			if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			s.hears("STOPPING=1")
			s.ends()
		})
	}
}

// service is a process that was started as systemd starts a Type=notify one.
type service struct {
	t      *testing.T
	cmd    *exec.Cmd
	socket *net.UnixConn
	ended  chan struct{}
	err    error           // set when ended is closed
	said   strings.Builder // complete when ended is closed
}

func start(t *testing.T, cmd *exec.Cmd) *service {
	t.Helper()
	path := filepath.Join(memory(t), "notify") // short: a socket's path holds 107 bytes
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, cmd: cmd, socket: socket, ended: make(chan struct{})}
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	cmd.Stdout, cmd.Stderr = &s.said, &s.said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.err = cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-s.ended
		socket.Close()
	})
	return s
}

// patience is more than any of it takes on a healthy machine.
const patience = time.Minute

// hears waits for the next message, which must be want.
func (s *service) hears(want string) {
	s.t.Helper()
	buf := make([]byte, 4<<10)
	for deadline := time.Now().Add(patience); ; {
		over := time.Now().After(deadline)
		select {
		case <-s.ended: // what it sent has come by now
			over = true
		default:
		}
		s.socket.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := s.socket.Read(buf)
		switch {
		case err == nil && string(buf[:n]) == want:
			return
		case err == nil:
			s.fail("said %q, want %s", buf[:n], want)
		case over:
			s.fail("said nothing (%v), want %s", err, want)
		}
	}
}

// ends waits until the process has ended, which must be with exit code 0.
func (s *service) ends() {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.fail("it does not end")
	}
	if s.err != nil {
		s.fail("want exit code 0")
	}
}

func (s *service) fail(format string, args ...any) {
	s.t.Helper()
	_ = s.cmd.Process.Kill()
	<-s.ended
	s.t.Fatalf("%s\nit ended with %v, and these words:\n%s", fmt.Sprintf(format, args...), s.err, s.said.String())
}

// command is the unit's own command line with another program and another
// configuration.
func command(t *testing.T, unit, program, config string) *exec.Cmd {
	t.Helper()
	for line := range strings.Lines(read(t, unit)) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart=")
		if !ok {
			continue
		}
		args := strings.Fields(value)
		i := slices.Index(args, "--config")
		if args[0] != installed || i < 0 || i+1 == len(args) {
			t.Fatalf("%s: %s: want %s … --config FILE", unit, line, installed)
		}
		args[i+1] = config
		return exec.Command(program, args[1:]...)
	}
	t.Fatalf("%s has no ExecStart=", unit)
	return nil
}

// build builds the program that the units run.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "tidemark")
	cmd := exec.Command("go", "build", "-o", program, "../../cmd/tidemark")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// memory is a short-lived directory on a tmpfs, as /run is.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "tm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
