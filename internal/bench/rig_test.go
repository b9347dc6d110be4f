//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/hub"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf"
)

const deviceName = "bench01"

// rig is one device with everything around it, as real processes.
type rig struct {
	t        *testing.T
	dir      string
	daemon   *harness.Daemon
	registry string
	key      *signingtest.Key
	git      *harness.Git
	hubAddr  string
	leafs    string // where the hub expects devices
	behind   *cable // the hub is at its far end; nil where it is beside the device
	agent    *harness.Process
	hub      *harness.Process
}

// tidemark is the program that is measured.
func tidemark() string { return filepath.Join(harness.Root(), "build", "tidemark") }

// newRig prepares a device; nothing of Tidemark runs yet.
func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigWith(t, nil)
}

// newRigWith prepares a device whose hub is at the far end of a cable.
func newRigWith(t *testing.T, behind *cable) *rig {
	t.Helper()
	r := &rig{behind: behind, hubAddr: harness.FreeAddress(t), leafs: harness.FreeAddress(t), t: t, daemon: harness.Containerd(t, "2"), registry: harness.Registry(t), key: signingtest.NewKey(t), git: harness.NewGit(t)}
	r.dir = r.daemon.Dir
	if behind != nil {
		r.hubAddr, r.leafs = behind.address+":4222", behind.address+":7422"
	}
	rule := r.key.Rule("bench", r.registry+"/**")
	r.write("agent.cue", fmt.Sprintf(`
device: %q, stateDir: %q, runDir: %q
repository: {url: %q, verify: "off", poll: "1h"}
images: [{name: "bench", match: %q, keys: [%q]}]
containerd: {address: %q, runc: %q, namespace: "bench"}
leaf: listen: %q
hub: url: "nats-leaf://%s"
outbox: maxBytes: "4Gi" // so that a million messages have room
`, deviceName, r.path("state"), r.path("run"), r.git.URL(), rule.Match, rule.Keys[0], r.daemon.Address, r.daemon.Runc, harness.FreeAddress(t), r.leafs))
	r.write("hub.cue", fmt.Sprintf(`
stateDir: %q, listen: %q, leafListen: %q
repository: {url: %q, verify: "off", poll: "1s"}
streams: maxBytes: "4Gi"
`, r.path("hub"), r.hubAddr, r.leafs, r.git.URL()))
	files, err := schema.Scaffold{Site: "lab", Device: deviceName}.Files()
	if err != nil {
		t.Fatal(err)
	}
	initial := map[string]string{}
	for path, content := range files {
		initial[path] = string(content)
	}
	r.git.Commit(initial)
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) write(name, content string) {
	if err := os.WriteFile(r.path(name), []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// image pushes and signs the bench module under a repository name.
func (r *rig) image(repo string) schema.Image {
	image := harness.PushImage(r.t, r.registry, repo, filepath.Join(harness.Root(), "internal", "bench", "module"))
	r.key.Sign(r.t, image)
	return image
}

// declare commits these modules: the body of each by name.
func (r *rig) declare(modules map[string]string) {
	identity, err := leaf.DeviceIdentity(r.path("state"))
	if err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "package fleet\n\ndevice: #device & {\n\tname: %q\n\tidentity: %q\n\tgate: \"500ms\"\n", deviceName, identity)
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		fmt.Fprintf(&b, "\tmodules: %q: {%s}\n", name, modules[name])
	}
	b.WriteString("}\n")
	r.git.Commit(map[string]string{"sites/lab/" + deviceName + "/device.cue": b.String()})
}

// many are n modules of one image.
func many(n int, image schema.Image) map[string]string {
	modules := map[string]string{}
	for i := range n {
		modules[fmt.Sprintf("m%03d", i)] = fmt.Sprintf("image: %q", image)
	}
	return modules
}

func (r *rig) startAgent() {
	r.agent = harness.Start(r.t, r.dir, exec.Command(tidemark(), "agent", "--config", r.path("agent.cue")))
	r.t.Cleanup(func() { r.agent.Stop(syscall.SIGKILL) })
}

func (r *rig) startHub() {
	cmd := r.behind.command(tidemark(), "hub", "--config", r.path("hub.cue"))
	dir := r.path("hublog")
	os.MkdirAll(dir, 0o700)
	r.hub = harness.Start(r.t, dir, cmd)
	r.t.Cleanup(func() { r.hub.Stop(syscall.SIGKILL) })
}

// dial connects to the agent as a person does.
func (r *rig) dial() *nats.Conn {
	var conn *nats.Conn
	harness.Eventually(r.t, func() (err error) {
		conn, _, err = leaf.Dial(r.path("run"))
		return err
	})
	r.t.Cleanup(conn.Close)
	return conn
}

// report asks the agent how the device is.
func report(conn *nats.Conn) (schema.Report, error) {
	var report schema.Report
	msg, err := conn.Request(twin.Prefix(deviceName, "")+".rpc.status", []byte("{}"), time.Second)
	if err == nil {
		err = json.Unmarshal(msg.Data, &report)
	}
	return report, err
}

// healthy waits until the newest commit is last-good.
func (r *rig) healthy(conn *nats.Conn) {
	head := r.git.Head()
	patiently(r.t, func() error {
		got, err := report(conn)
		if err == nil && (got.Phase != schema.PhaseHealthy || got.LastGood.Commit != head) {
			err = fmt.Errorf("phase %s, last good %s, refused %+v", got.Phase, got.LastGood.Short(), got.Refused)
		}
		return err
	})
}

// reconcile kicks the agent.
func reconcile(conn *nats.Conn) error {
	_, err := conn.Request(twin.Prefix(deviceName, "")+".rpc.reconcile", []byte(`{"by":"bench"}`), 5*time.Second)
	return err
}

// began is when the module's main last began, by what it printed.
func (r *rig) began(module string) time.Time {
	content, err := os.ReadFile(filepath.Join(r.path("state"), "logs", module+".log"))
	if err != nil {
		return time.Time{}
	}
	fields := strings.Fields(strings.TrimSpace(string(content)))
	if len(fields) == 0 {
		return time.Time{}
	}
	nanos, err := strconv.ParseInt(fields[len(fields)-1], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(0, nanos)
}

// beganAfter waits for a main that began after t0 and returns the time between.
func (r *rig) beganAfter(module string, t0 time.Time) time.Duration {
	var took time.Duration
	harness.Eventually(r.t, func() error {
		took = r.began(module).Sub(t0)
		if took < 0 {
			return fmt.Errorf("%s has not begun anew", module)
		}
		return nil
	})
	return took
}

// module connects with the credential that the agent made for a module.
func (r *rig) module(ctx context.Context, name string) (conn *nats.Conn, prefix string) {
	url, seed := r.seat(name)
	key, err := nats.NkeyOptionFromSeed(seed)
	if err != nil {
		r.t.Fatal(err)
	}
	conn, err = nats.Connect(url, key, nats.CustomInboxPrefix(twin.Inbox(deviceName, name)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(conn.Close)
	return conn, twin.Prefix(deviceName, name)
}

// client connects as a module does that is written in Go.
func (r *rig) client(name string) *twin.Client {
	url, seed := r.seat(name)
	r.t.Setenv(twin.EnvURL, url)
	r.t.Setenv(twin.EnvIdentity, "/devices/"+deviceName+"/modules/"+name)
	r.t.Setenv(twin.EnvCreds, seed)
	client, err := twin.Connect(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { client.Close() })
	return client
}

// seat is where a module connects, and its seed file.
func (r *rig) seat(name string) (url, seed string) {
	harness.Eventually(r.t, func() error {
		found, _ := filepath.Glob(filepath.Join(r.path("run"), "*", name, "identity.nk"))
		if len(found) == 0 {
			return fmt.Errorf("no credential of %s", name)
		}
		seed = found[0]
		return nil
	})
	var agent struct{ URL string }
	content, err := os.ReadFile(filepath.Join(r.path("run"), "agent.json"))
	if err == nil {
		err = json.Unmarshal(content, &agent)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return agent.URL, seed
}

// hubStream is what the hub has stored, asked for by a person at the hub.
func (r *rig) hubStream() (stored jetstream.Stream) {
	harness.Eventually(r.t, func() error {
		conn, err := hub.Dial(r.hubAddr, filepath.Join(r.path("hub"), "operator.nk"))
		if err != nil {
			return err
		}
		js, err := jetstream.New(conn)
		if err == nil {
			stored, err = js.Stream(context.Background(), hub.StreamMessages)
		}
		if err != nil {
			conn.Close()
			return err
		}
		r.t.Cleanup(conn.Close)
		return nil
	})
	return stored
}
