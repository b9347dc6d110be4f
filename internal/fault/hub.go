package fault

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/hub"
	"github.com/tidemark-edge/tidemark/internal/harness"
)

// Hub is the hub of a device: a real process, on the other side of the link, with
// its state on a disk of its own.
type Hub struct {
	Disk       *Disk       // whose power is cut with the hub's
	Controller *Controller // of its failpoints

	t       testing.TB
	dir     string
	clients string     // host:port where people connect
	leafs   string     // host:port where devices connect
	conn    *nats.Conn // as its operator

	mu      sync.Mutex
	process *harness.Process // nil while it is off
	cut     bool             // its disk has had no power since
}

// newHub makes a hub that follows a fleet repository, which has to name the device's
// identity, and starts it.
func newHub(t testing.TB, dir, fs string, git *harness.Git) *Hub {
	t.Helper()
	h := &Hub{t: t, dir: dir, Disk: NewDisk(t, fs, 512), clients: harness.FreeAddress(t), leafs: harness.FreeAddress(t)}
	t.Cleanup(h.cleanUp) // before the disk's
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h.Controller = newController(t, filepath.Join(dir, "failpoints"))
	write(t, filepath.Join(dir, "hub.cue"), fmt.Appendf(nil, `
stateDir: %q
repository: {url: %q, verify: "signed", allowedSigners: %q, poll: "1h"}
listen: %q
leafListen: %q
streams: maxBytes: "128Mi"
`, h.stateDir(), git.URL(), git.AllowedSigners(), h.clients, h.leafs))
	h.Start()
	return h
}

func (h *Hub) stateDir() string { return filepath.Join(h.Disk.Dir, "hub") }

// Start starts it, where it does not run.
func (h *Hub) Start() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.process != nil {
		return
	}
	if h.cut {
		h.Disk.Remount()
		h.cut = false
	}
	cmd := exec.Command(Agent(h.t), "hub", "--config", filepath.Join(h.dir, "hub.cue"))
	cmd.Env = append(os.Environ(), "TIDEMARK_FAILPOINTS="+h.Controller.Path)
	h.process = harness.Start(h.t, h.dir, cmd)
}

// Kill ends it with SIGKILL.
func (h *Hub) Kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.process != nil {
		h.process.Stop(syscall.SIGKILL)
		h.process = nil
	}
}

// PowerCut takes its power away, until Start.
func (h *Hub) PowerCut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.process != nil {
		h.Disk.PowerCut(h.process.PID())
		h.process.Stop(syscall.SIGKILL)
		h.process, h.cut = nil, true
	}
}

func (h *Hub) cleanUp() {
	h.Kill()
	if h.conn != nil {
		h.conn.Close()
	}
	if h.t.Failed() {
		h.t.Logf("hub:\n%s", tail(h.Log(), 4<<10))
	}
}

// Log is the file with what it printed.
func (h *Hub) Log() string { return filepath.Join(h.dir, "tidemark.log") }

// Messages reads what the hub holds.
func (h *Hub) Messages() (*hub.Messages, error) {
	if h.conn == nil || !h.conn.IsConnected() {
		if h.conn != nil {
			h.conn.Close()
		}
		var err error
		if h.conn, err = hub.Dial("nats://"+h.clients, filepath.Join(h.stateDir(), "operator.nk")); err != nil {
			return nil, err
		}
	}
	return hub.OpenMessages(h.conn)
}

// Audit is the hub's own account of a device.
func (h *Hub) Audit(device string) ([]hub.Audit, error) {
	m, err := h.Messages()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	return m.Audit(ctx, device)
}

// enrol gives a device a key and returns the public one.
func enrol(t testing.TB, stateDir string) string {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(stateDir, "identity.nk"), append(seed, '\n'))
	syscall.Sync() // as from the factory: it is there before any fault
	return public
}
