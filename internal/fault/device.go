package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

// Options say what a device is made of.
type Options struct {
	World      *World // what it reaches; nil makes one
	Containerd string // one of harness.ContainerdVersions; "2" without it
	FS         string // one of Filesystems; without it the disk is a directory, which has no power to cut
	SizeMB     int64  // of the disk; 512 without it
	Clock      bool   // containerd too follows the device's Clock, which 1.6 cannot
	Gate       string // of its definitions; 500ms without it

	// Hub: the device has one, and may run a Sender.
	Hub bool
	Pad int // bytes that each message of a Sender is longer than it need be

	// OwnContainerd: the agent is told that containerd is its own, so that it may
	// set damage aside.
	OwnContainerd bool
}

// Device is a whole device: a machine with containerd and the agent, both with
// their state on one disk, as real processes; and a fleet repository that it
// follows.
type Device struct {
	Name       string
	Dir        string // holds what is below
	StateDir   string // of the agent, on the disk
	RunDir     string // of the agent, in memory
	Root       string // of containerd, on the disk
	Address    string // containerd's socket
	World      *World
	Disk       *Disk // nil without Options.FS
	Clock      *Clock
	Controller *Controller
	Git        *harness.Git
	Hub        *Hub     // nil without Options.Hub
	Account    *Account // of the messages to it
	Routes     string   // of what is deployed from now on, CUE; with a hub
	Machine    *Machine // nil while it is off
	Link       *Link    // of this Machine
	Damaged    []string // files that were damaged on purpose: it is right when they are set aside
	Offline    bool     // the next boots find no interface up, until Link.Restore

	t          testing.TB
	options    Options
	namespace  string     // of containerd: runc's state is per namespace, whatever the daemon
	containerd string     // binary
	runc       string     // binary
	agent      string     // binary
	git        string     // host:port of the repository
	life       sync.Mutex // who holds it starts parts
	pids       map[Part]int
	conn       *nats.Conn // as a person, to the agent
	commits    map[string]commit
	identity   string  // its public key, with a hub
	head       string  // the newest commit
	baseline   *Census // the first there was
	modules    int     // containers, then
}

// Part is a program of a device.
type Part string

// The parts that can be killed.
const (
	AgentPart      Part = "agent"
	ContainerdPart Part = "containerd"
	ShimPart       Part = "shim"
)

// NewDevice makes a device, which is off. It ends with the test.
func NewDevice(t testing.TB, options Options) *Device {
	t.Helper()
	if options.World == nil {
		options.World = NewWorld(t)
	}
	options.Containerd, options.SizeMB, options.Gate = or(options.Containerd, "2"), or(options.SizeMB, 512), or(options.Gate, "500ms")
	dir, err := os.MkdirTemp("", "tf") // short: there are sockets in it
	if err != nil {
		t.Fatal(err)
	}
	d := &Device{Name: "edge01", Dir: dir, World: options.World, t: t, options: options,
		namespace: fmt.Sprintf("fault-%d-%08x", os.Getpid(), rand.Uint32()),
		runc:      harness.Tool(t, "runc"), agent: Agent(t), pids: map[Part]int{}, commits: map[string]commit{}}
	d.containerd = harness.Tool(t, "containerd-"+options.Containerd)
	if options.Clock && options.Containerd == "2" {
		d.containerd = clockedContainerd(t)
	}
	disk := filepath.Join(dir, "disk")
	if options.FS != "" {
		d.Disk = NewDisk(t, options.FS, options.SizeMB)
		disk = d.Disk.Dir
	}
	t.Cleanup(d.cleanUp) // before the disk's
	d.StateDir, d.Root = filepath.Join(disk, "tidemark"), filepath.Join(disk, "containerd")
	d.RunDir, d.Address = filepath.Join(dir, "run", "tidemark"), filepath.Join(dir, "run", "c.sock")
	d.Controller = newController(t, filepath.Join(dir, "failpoints"))
	d.Clock = newClock(t, filepath.Join(dir, "clock"))
	d.Git = harness.NewGit(t)
	d.git = serveGit(t, d.Git)
	for _, sub := range []string{d.StateDir, d.Root, filepath.Join(dir, "run")} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.configure()
	if options.Hub {
		d.identity, d.Routes, d.Account = enrol(t, d.StateDir), routes, newAccount(d)
		if err := errors.Join(os.Mkdir(d.toldDir(), 0o755), os.Chmod(d.toldDir(), 0o777)); err != nil {
			t.Fatal(err)
		}
	}
	d.scaffold()
	if options.Hub {
		d.Hub = newHub(t, filepath.Join(dir, "hub"), or(options.FS, "ext4"), d.Git)
	}
	return d
}

// toldDir is where the sender writes what it was told: not on the device's disk.
func (d *Device) toldDir() string { return filepath.Join(d.Dir, "told") }

// or is a, or b where a is nothing.
func or[T comparable](a, b T) T {
	var nothing T
	if a == nothing {
		return b
	}
	return a
}

// configure writes the configurations of containerd and of the agent.
func (d *Device) configure() {
	d.t.Helper()
	run := filepath.Join(d.Dir, "run")
	config := harness.DaemonConfig(d.Root, filepath.Join(run, "containerd"), d.Address)
	write(d.t, filepath.Join(d.Dir, "containerd.toml"), []byte(config))
	root := ""
	if d.options.OwnContainerd {
		root = fmt.Sprintf(", root: %q", d.Root)
	}
	hub := ""
	if d.options.Hub {
		hub = fmt.Sprintf("hub: url: \"nats-leaf://%s\"\nhostMounts: [%q]\n", hubHost, d.toldDir())
	}
	rule := d.World.key.Rule("fault", registryHost+"/**")
	write(d.t, filepath.Join(d.Dir, "agent.cue"), fmt.Appendf(nil, `
device: %q, stateDir: %q, runDir: %q
repository: {url: "http://%s/fleet/.git", verify: "signed", allowedSigners: %q, poll: "2s"}
images: [{name: %q, match: %q, keys: [%q]}]
registries: %q: plainHttp: true
containerd: {address: %q, runc: %q, namespace: %q%s}
disk: reserve: "4Mi"
outbox: maxBytes: "16Mi"
%s`, d.Name, d.StateDir, d.RunDir, gitHost, d.Git.AllowedSigners(), rule.Name, rule.Match, rule.Keys[0],
		registryHost, d.Address, d.runc, d.namespace, root, hub))
}

// Boot turns the device on, from whatever its disk holds, and starts what a
// device's init system starts: containerd, and the agent beside it.
func (d *Device) Boot() {
	d.t.Helper()
	if d.Machine != nil {
		d.t.Fatal("boot: the device is on")
	}
	run := filepath.Join(d.Dir, "run")
	if err := syscall.Mount("tidemark-fault", run, "tmpfs", 0, "mode=0755,size=64m"); err != nil {
		d.t.Fatalf("mount %s: %v", run, err)
	}
	keep := ""
	if d.Disk != nil {
		keep = d.Disk.device
	}
	d.Machine = boot(d.t, d.Dir, keep)
	outside := map[string]string{registryHost: d.World.registry, gitHost: d.git}
	if d.Hub != nil {
		outside[hubHost] = d.Hub.leafs
	}
	d.Link = plug(d.t, d.Machine, outside, d.Offline)
	d.Revive()
}

// Revive starts containerd and the agent where they do not run, as an init system
// does after a while, and the machine and the hub where they are off.
func (d *Device) Revive() {
	d.t.Helper()
	if d.Machine != nil && d.Machine.isOff() {
		d.PowerOff()
	}
	if d.Machine == nil {
		d.Boot()
		return
	}
	if d.Hub != nil {
		d.Hub.Start()
	}
	d.life.Lock()
	defer d.life.Unlock()
	if d.down(ContainerdPart) {
		os.Remove(d.Address)
		path := "PATH=" + filepath.Dir(d.containerd) + ":" + filepath.Dir(d.runc) + ":" + os.Getenv("PATH")
		d.pids[ContainerdPart] = d.Machine.start(d.Log(ContainerdPart), []string{path, d.clockVariable()},
			d.containerd, "--config", filepath.Join(d.Dir, "containerd.toml"), "--log-level", "warn")
	}
	if d.down(AgentPart) {
		d.pids[AgentPart] = d.Machine.start(d.Log(AgentPart),
			[]string{"PATH=" + os.Getenv("PATH"), d.clockVariable(), "TIDEMARK_FAILPOINTS=" + d.Controller.Path},
			d.agent, "agent", "--config", filepath.Join(d.Dir, "agent.cue"))
	}
}

// KeepAlive calls Revive now and then, until stop is called.
func (d *Device) KeepAlive() (stop func()) {
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(200 * time.Millisecond):
				d.Revive()
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (d *Device) clockVariable() string { return "TIDEMARK_TEST_CLOCK=" + d.Clock.path }

// Log is the file with what a part printed, since the device was made.
func (d *Device) Log(p Part) string { return filepath.Join(d.Dir, string(p)+".log") }

// down reports whether a part does not run.
func (d *Device) down(p Part) bool { return d.pids[p] == 0 || d.Machine.end(d.pids[p]) != "" }

// Kill ends a part with SIGKILL; of the shims, one that chance chooses. What does
// not run is not killed, and reported as false.
func (d *Device) Kill(p Part) bool {
	if d.Machine == nil || d.Machine.isOff() {
		return false
	}
	if p == ShimPart {
		shims := d.processes(isShim)
		if len(shims) == 0 {
			return false
		}
		return syscall.Kill(shims[rand.IntN(len(shims))].pid, syscall.SIGKILL) == nil
	}
	return d.end(p, syscall.SIGKILL)
}

// Stop ends a part as an init system does, in order.
func (d *Device) Stop(p Part) bool { return d.end(p, syscall.SIGTERM) }

// end signals a part and waits until it has ended.
func (d *Device) end(p Part, how syscall.Signal) bool {
	if d.down(p) {
		return false
	}
	d.Machine.signal(d.pids[p], how)
	for deadline := time.Now().Add(20 * time.Second); !d.down(p); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Errorf("end %s with %s: it does not", p, how)
			return false
		}
	}
	return true
}

// PowerCut takes the power away: the disk keeps what was on it, and everything
// that runs is gone.
func (d *Device) PowerCut() {
	if d.Disk != nil && d.Machine != nil && !d.Machine.isOff() {
		d.Disk.PowerCut(d.Machine.PID)
	}
	if d.Machine != nil {
		d.Machine.PowerOff()
	}
}

// PowerOff ends everything that runs, as PowerCut does, but for the disk: what is
// in memory is still written to it. After PowerCut it makes the device ready for
// Boot.
func (d *Device) PowerOff() {
	d.t.Helper()
	if d.Machine == nil {
		return
	}
	d.Machine.PowerOff()
	d.Link.unplug()
	d.hangUp()
	d.Machine, d.Link, d.pids = nil, nil, map[Part]int{}
	if err := syscall.Unmount(filepath.Join(d.Dir, "run"), syscall.MNT_DETACH); err != nil {
		d.t.Fatalf("unmount: %v", err)
	}
	d.removeCgroups()
	if d.Disk != nil {
		d.Disk.Remount()
	}
}

// cleanUp ends the device, and shows the logs when the test failed.
func (d *Device) cleanUp() {
	d.PowerOff()
	if d.t.Failed() {
		for _, p := range []Part{AgentPart, ContainerdPart} {
			d.t.Logf("%s:\n%s", p, tail(d.Log(p), 8<<10))
		}
	}
	if err := os.RemoveAll(d.Dir); err != nil {
		d.t.Errorf("clean up: %v", err)
	}
}

// tail is the end of a file.
func tail(path string, most int) string {
	content, _ := os.ReadFile(path)
	return strings.TrimSpace(string(content[max(0, len(content)-most):]))
}
