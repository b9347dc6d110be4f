// Package clients holds one module in two languages, and plays both against the
// agent's own parts.
package clients

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf"
	"github.com/tidemark-edge/tidemark/twin/outbox"
)

const patience = 30 * time.Second

func TestGo(t *testing.T) {
	program := filepath.Join(t.TempDir(), "fan")
	if out, err := exec.Command("go", "build", "-o", program, "./go").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	play(t, exec.Command(program))
}

// A stock NATS library is all that a module needs.
func TestNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("no node here: make tools installs it")
	}
	installed := harness.Tool(t, "client-node") // …/node_modules/.package-lock.json
	dir := t.TempDir()
	for _, name := range []string{"main.js", "package.json"} {
		data, err := os.ReadFile(filepath.Join("node", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Dir(installed), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	play(t, exec.Command(node, filepath.Join(dir, "main.js")))
}

// device is what the agent is made of, as far as modules see it.
type device struct {
	t      *testing.T
	config leaf.Config
	leaf   *leaf.Leaf
	outbox *outbox.Outbox
	conn   *nats.Conn // inside the device, with every permission
}

func newDevice(t *testing.T) *device {
	run, err := os.MkdirTemp("/dev/shm", "clients")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	d := &device{t: t, config: leaf.Config{
		Device: "d1", StateDir: t.TempDir(), RunDir: run, Listen: "127.0.0.1:0",
		Warn: func(err error) { t.Log(err) },
	}}
	d.open()
	t.Cleanup(d.close)
	return d
}

func (d *device) open() {
	d.t.Helper()
	var err error
	if d.leaf, err = leaf.Open(d.t.Context(), d.config); err != nil {
		d.t.Fatal(err)
	}
	d.config.Listen = strings.TrimPrefix(d.leaf.ClientURL(), "nats://")
	if d.conn, err = d.leaf.Connect("test"); err != nil {
		d.t.Fatal(err)
	}
	if d.outbox, err = outbox.Open(d.t.Context(), d.conn, nil, outbox.Config{Device: "d1"}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) close() {
	d.outbox.Close()
	d.conn.Close()
	d.leaf.Close()
}

// desire declares the fan, and what Git desires of it.
func (d *device) desire(speed int) {
	d.t.Helper()
	err := d.leaf.Declare(d.t.Context(), schema.Desired{
		Revision: schema.Revision{Commit: fmt.Sprintf("c%d", speed)}, Device: "d1",
		Modules: []schema.Module{{Name: "fan", Twin: schema.TwinSpec{
			Desired: map[string]any{"speed": speed}, Reported: "speed?: int & <=100\nfollows?: int\nsent?: int\nby?: string\n",
		}}},
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// want waits until the fan reports this.
func (d *device) want(reported map[string]any) {
	d.t.Helper()
	harness.Eventually(d.t, func() error {
		for _, doc := range d.leaf.Documents() {
			if doc.Module != "fan" {
				continue
			}
			is := doc.Properties.Reported.Values
			for key, v := range reported {
				if is[key] != v {
					return fmt.Errorf("the fan reports %v, want %v", is, reported)
				}
			}
			return nil
		}
		return fmt.Errorf("no twin of the fan")
	})
}

func (d *device) ask(subject string, header nats.Header, body string) string {
	d.t.Helper()
	m, err := d.conn.RequestMsg(&nats.Msg{Subject: "devices.d1.modules.fan." + subject, Header: header, Data: []byte(body)}, patience)
	if err != nil {
		d.t.Fatalf("ask %s: %v", subject, err)
	}
	return string(m.Data)
}

// play is the life of a module.
func play(t *testing.T, program *exec.Cmd) {
	d := newDevice(t)
	d.desire(30)
	dir, env, err := d.leaf.Identity(t.Context(), "fan", uint32(os.Getuid()), uint32(os.Getgid()))
	if err != nil {
		t.Fatal(err)
	}
	env[twin.EnvCreds] = filepath.Join(dir, filepath.Base(env[twin.EnvCreds])) // it runs in no container
	program.Env = os.Environ()
	for key, value := range env {
		program.Env = append(program.Env, key+"="+value)
	}
	fan := harness.Start(t, t.TempDir(), program)
	defer func() {
		fan.Stop(syscall.SIGTERM)
		if printed, err := os.ReadFile(fan.Log()); t.Failed() {
			t.Logf("the fan printed: %s %v", printed, err)
		}
	}()

	d.want(map[string]any{"speed": 30.0, "follows": 1.0, "sent": 1.0})
	d.desire(40)
	d.want(map[string]any{"speed": 40.0, "follows": 2.0, "sent": 2.0})
	if stats, err := d.outbox.Stats(t.Context()); err != nil || stats.Pending != 2 {
		t.Errorf("in the outbox: %+v, %v, want 2 messages", stats, err)
	}

	if answer := d.ask("rpc.speed", nil, ""); answer != `{"speed":40}` {
		t.Errorf("the method answers %s", answer)
	}
	var e *twin.Error
	if _, err := twin.ReadReply([]byte(d.ask("rpc.speed", nil, "x"))); !errors.As(err, &e) || e.Code != twin.CodeMalformed {
		t.Errorf("asked wrongly it answers %v", err)
	}

	header := nats.Header{twin.HeaderFrom: {"panel/keys"}, twin.HeaderEpoch: {"e"}, twin.HeaderSeq: {"1"}}
	if answer := d.ask("in.commands", header, `{"speed":90}`); answer != "" {
		t.Errorf("the command is answered %s", answer)
	}
	d.want(map[string]any{"speed": 90.0, "by": "panel/keys"})
	header[twin.HeaderSeq] = []string{"2"}
	if answer := d.ask("in.commands", header, `{"speed":900}`); !strings.Contains(answer, `"error"`) {
		t.Errorf("a command that it cannot report is answered %q", answer)
	}
	if answer := d.ask("in.commands", header, `no command`); answer != "" {
		t.Errorf("what will never be one is answered %s", answer)
	}

	// The agent goes and comes back; what was desired meanwhile is followed.
	d.close()
	d.open()
	d.desire(50)
	d.want(map[string]any{"speed": 50.0, "follows": 3.0, "sent": 3.0})
}

// A person on the device has the same client, as the device; and keeps it when
// the agent starts anew, with another key for people.
func TestPerson(t *testing.T) {
	d := newDevice(t)
	d.desire(30)
	ping := func(_ context.Context, body []byte) ([]byte, error) { return append([]byte("pong "), body...), nil }
	if err := d.leaf.Handle("ping", ping); err != nil {
		t.Fatal(err)
	}
	t.Setenv(twin.EnvURL, d.leaf.ClientURL())
	t.Setenv(twin.EnvIdentity, "/devices/d1")
	t.Setenv(twin.EnvCreds, filepath.Join(d.config.RunDir, "operator.nk"))
	person, err := twin.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	versions := make(chan uint64, 8)
	if err := person.OnDesired(func(s twin.Section) { versions <- s.Version }); err != nil {
		t.Fatal(err)
	}
	if twin, err := person.Get(t.Context()); err != nil || twin.Device != "d1" || twin.Module != "" || <-versions != 1 {
		t.Errorf("the device's twin is %+v, %v", twin, err)
	}
	var e *twin.Error
	if _, err := person.Report(t.Context(), map[string]any{"a": 1}); !errors.As(err, &e) || e.Code != twin.CodeRefused {
		t.Errorf("a report in the agent's name: %v", err)
	}
	if answer, err := person.Call(t.Context(), "ping", []byte("x")); err != nil || string(answer) != "pong x" {
		t.Errorf("a method of the device: %s, %v", answer, err)
	}
	if _, err := person.Call(t.Context(), "fan/speed", nil); !errors.As(err, &e) || e.Code != twin.CodeOffline {
		t.Errorf("a module that is not there: %v", err)
	}
	d.close()
	d.open()
	if err := d.leaf.Handle("ping", ping); err != nil {
		t.Fatal(err)
	}
	if _, err := person.Get(t.Context()); err != nil {
		t.Errorf("after a restart of the agent: %v", err)
	}
	if answer, err := person.Call(t.Context(), "ping", []byte("y")); err != nil || string(answer) != "pong y" {
		t.Errorf("a method after a restart of the agent: %s, %v", answer, err)
	}
}
