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
	most   int        // speed that the fan may report
}

func newDevice(t *testing.T) *device {
	run, err := os.MkdirTemp("/dev/shm", "clients")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	d := &device{t: t, most: 100, config: leaf.Config{
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
	if d.outbox, err = outbox.Open(d.t.Context(), d.conn, nil, outbox.Config{Device: "d1", StateDir: d.config.StateDir}); err != nil {
		d.t.Fatal(err)
	}
}

// route has messages go as a definition says: what the panel sends, to the fan.
func (d *device) route() {
	d.t.Helper()
	commands := schema.DefaultRoute()
	commands.Name, commands.From, commands.To = "commands", "panel/keys", "fan/commands"
	changes := schema.DefaultRoute()
	changes.Name, changes.From = "changes", "fan/*"
	if err := d.outbox.Route(d.t.Context(), []schema.Route{changes, commands}); err != nil {
		d.t.Fatal(err)
	}
}

// lane is how a route stands.
func (d *device) lane(route string) outbox.LaneStats {
	d.t.Helper()
	stats, err := d.outbox.Stats(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	for _, l := range stats.Lanes {
		if l.Route == route {
			return l
		}
	}
	d.t.Fatalf("no route %s in %+v", route, stats)
	return outbox.LaneStats{}
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
			Desired: map[string]any{"speed": speed}, Reported: fmt.Sprintf("speed?: int & <=%d\nfollows?: int\nsent?: int\nby?: string\n", d.most),
		}}, {Name: "panel"}},
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

// call calls the fan's method, as a person and the cloud do.
func (d *device) call(method, body string) string {
	d.t.Helper()
	m, err := d.conn.Request("devices.d1.modules.fan.rpc."+method, []byte(body), patience)
	if err != nil {
		d.t.Fatalf("call %s: %v", method, err)
	}
	return string(m.Data)
}

// environment is that which a module is started with, but that it runs in no
// container.
func (d *device) environment(module string) map[string]string {
	d.t.Helper()
	dir, env, err := d.leaf.Identity(d.t.Context(), module, uint32(os.Getuid()), uint32(os.Getgid()))
	if err != nil {
		d.t.Fatal(err)
	}
	env[twin.EnvCreds] = filepath.Join(dir, filepath.Base(env[twin.EnvCreds]))
	return env
}

// connect connects as a module.
func (d *device) connect(module string) *twin.Client {
	d.t.Helper()
	for key, value := range d.environment(module) {
		d.t.Setenv(key, value)
	}
	c, err := twin.Connect(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.Close)
	return c
}

// play is the life of a module.
func play(t *testing.T, program *exec.Cmd) {
	d := newDevice(t)
	d.route()
	d.desire(30)
	program.Env = os.Environ()
	for key, value := range d.environment("fan") {
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
	if l := d.lane("changes"); l.Pending != 2 {
		t.Errorf("for the hub: %+v, want 2 messages", l)
	}

	if answer := d.call("speed", ""); answer != `{"speed":40}` {
		t.Errorf("the method answers %s", answer)
	}
	var e *twin.Error
	if _, err := twin.ReadReply([]byte(d.call("speed", "x"))); !errors.As(err, &e) || e.Code != twin.CodeMalformed {
		t.Errorf("asked wrongly it answers %v", err)
	}

	// Commands of another module, by the route: one that the fan may not report
	// comes again until the definition allows it, one that is none does not.
	panel := d.connect("panel")
	for _, command := range []string{`{"speed":90}`, "no command", `{"speed":900}`, `{"speed":70}`} {
		if err := panel.Send(t.Context(), "keys", []byte(command)); err != nil {
			t.Fatal(err)
		}
	}
	d.want(map[string]any{"speed": 90.0, "by": "panel/keys"})
	harness.Eventually(t, func() error {
		if l := d.lane("commands"); l.Pending != 2 || !strings.Contains(l.LastError, "422") {
			return fmt.Errorf("commands: %+v, want the last two to wait for a refusal to end", l)
		}
		return nil
	})
	d.most = 1000
	d.desire(40)
	d.want(map[string]any{"speed": 70.0, "by": "panel/keys"})
	harness.Eventually(t, func() error {
		if l := d.lane("commands"); l.Pending != 0 || l.Delivered != 4 {
			return fmt.Errorf("commands: %+v, want all four delivered", l)
		}
		return nil
	})

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
