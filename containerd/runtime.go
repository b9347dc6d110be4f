package containerd

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/tidemark-edge/tidemark/containerd/keyed"
	"github.com/tidemark-edge/tidemark/containerd/salvage"
	"github.com/tidemark-edge/tidemark/containerd/specification"
	"github.com/tidemark-edge/tidemark/containerd/store"
	"github.com/tidemark-edge/tidemark/schema"
)

// Runtime runs modules in one namespace of one containerd. Its methods may be
// called concurrently; its fields are set before the first call.
type Runtime struct {
	// Images are those that its containers are made from. Open sets it.
	Images *store.Store
	// StateDir survives reboots. Below it are volumes/<module>/<volume>,
	// logs/<module>.log and hosts/<module>.
	StateDir string
	// RunDir need not survive a reboot, and is best not on a disk: below it,
	// in probes, are pipes by which commands of probes answer. Empty is none:
	// an error of a probe then does not quote what its command printed.
	RunDir string
	// HostMounts are the host paths that a module may mount, with all below
	// them.
	HostMounts []string
	// HostNetwork names the modules that may use the host's network; "*" is
	// all of them.
	HostNetwork []string
	// Identity makes, if it is missing, the directory with the credential of a
	// module whose first process has these ids. It is mounted read-only at
	// /run/tidemark, and env is added to the module's. Nil is none.
	Identity func(ctx context.Context, module string, uid, gid uint32) (dir string, env map[string]string, err error)
	// Attach is told of each new network namespace that has only a loopback,
	// by a process in it: before the module's first instruction, and once more
	// for each running module that this Runtime has not started itself (from
	// Observe, which tries again at its next call when Attach fails). Nil is
	// none.
	Attach func(ctx context.Context, module string, pid int) error
	// LogBytes bounds what is kept of each module's output, in bytes on the
	// disk; 0 is output.DefaultMax. KeepLogs must run for that.
	LogBytes int64
	// Warn is told of what goes wrong with logs, which hinders nothing else. Nil
	// is nobody.
	Warn func(error)

	config schema.ContainerdConfig
	client *client.Client
	busy   keyed.Lock // containers being changed, and commands of probes
	logs   logs

	mu     sync.Mutex
	met    map[string]run               // running containers by id, as last observed or started
	listed map[string]listed            // containers by id, as last listed
	owed   map[string]map[string]string // labels by id that there was no room for; see note
	boot   time.Time                    // when this machine booted, by its present wall clock
}

// Defaults of schema.ContainerdConfig, for callers that did not load it
// through its schema.
const (
	DefaultAddress     = "/run/containerd/containerd.sock"
	DefaultNamespace   = "tidemark"
	DefaultSnapshotter = "overlayfs"
	DefaultRuntime     = "io.containerd.runc.v2"
)

// usualRoot is where a containerd at DefaultAddress keeps all it keeps.
const usualRoot = "/var/lib/containerd"

// reach says how to find a daemon that is down, or slow to come up: try each
// second, and wait for an answer for longer.
var reach = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 20 * time.Second,
}

// Open returns a Runtime for the containerd that config names. It does not
// need the daemon to answer yet: a device boots in any order, and each call
// says for itself when there is no daemon.
func Open(config schema.ContainerdConfig) (*Runtime, error) {
	config.Address = cmp.Or(config.Address, DefaultAddress)
	config.Namespace = cmp.Or(config.Namespace, DefaultNamespace)
	config.Snapshotter = cmp.Or(config.Snapshotter, DefaultSnapshotter)
	config.Runtime = cmp.Or(config.Runtime, DefaultRuntime)
	if !filepath.IsAbs(config.Address) {
		return nil, fmt.Errorf("containerd: address %q: want the absolute path of its socket", config.Address)
	}
	if config.Runc != "" && !filepath.IsAbs(config.Runc) {
		return nil, fmt.Errorf("containerd: runc %q: want an absolute path", config.Runc)
	}
	c, err := client.New(config.Address, client.WithDefaultNamespace(config.Namespace),
		client.WithExtraDialOpts([]grpc.DialOption{grpc.WithConnectParams(reach)}))
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w", config.Address, err)
	}
	images := &store.Store{Client: c, Snapshotter: config.Snapshotter}
	return &Runtime{Images: images, config: config, client: c, met: map[string]run{}}, nil
}

// Close lets go of the daemon. Containers run on.
func (r *Runtime) Close() error { return r.client.Close() }

// Daemon is the containerd itself, for who guards it.
func (r *Runtime) Daemon() salvage.Daemon {
	d := salvage.Daemon{Client: r.client, Address: r.config.Address, Root: r.config.Root}
	if r.config.Address == DefaultAddress {
		d.UsualRoot = usualRoot
	}
	return d
}

// host is what modules may have of this device.
func (r *Runtime) host() specification.Host {
	return specification.Host{StateDir: r.StateDir, HostMounts: r.HostMounts, HostNetwork: r.HostNetwork}
}

// Permits says whether the device's owner lets every module that shall run have
// the network and the mounts that it asks for: see specification.Host.
func (r *Runtime) Permits(desired schema.Desired) error { return r.host().Permits(desired) }

// containerID names the container of a module's definition. The hash is in it
// so that the old and the new one can exist side by side.
func containerID(module, hash string) string { return module + "." + hash[:8] }

// detached is a context for cleaning up after ctx may have ended.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}
