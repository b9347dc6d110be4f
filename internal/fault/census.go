package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
)

// Census counts what a device holds of each thing that may leak.
type Census struct {
	Containers int
	Tasks      int
	Shims      int // processes
	Modules    int // processes
	Active     int // snapshots of containers
	Committed  int // snapshots of images
	Images     int
	Leases     int
	Mounts     int // of the device's directories
	Cgroups    int // of the containerd namespace
	Networks   int // network namespaces that a process is in
	Agent      int // its process

	// Of the agent, without what goes up and down by itself, which is below.
	FDs        int
	Threads    int
	Goroutines int

	Registry int    // the agent's connections to the registry: a descriptor and two goroutines each
	Packs    int    // of the clone, that the agent has open
	Open     string // what all descriptors of the agent are
}

// holdings is what containerd has, asked without any code of ours in between.
type holdings struct {
	containers []containers.Container
	running    map[string]bool // containers with a process that runs
	images     []images.Image
	leases     []leases.Lease
	active     []string
	committed  map[string]string // parent by name
}

// held asks containerd, after it has collected its garbage.
func (d *Device) held() (holdings, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	c, err := client.New(d.Address, client.WithDefaultNamespace(d.namespace), client.WithTimeout(10*time.Second))
	if err != nil {
		return holdings{}, fmt.Errorf("containerd: %w", err)
	}
	defer c.Close()
	if err := collect(ctx, c); err != nil {
		return holdings{}, fmt.Errorf("containerd: collect garbage: %w", err)
	}
	h := holdings{running: map[string]bool{}, committed: map[string]string{}}
	if h.containers, err = c.ContainerService().List(ctx); err != nil {
		return h, fmt.Errorf("containerd: %w", err)
	}
	for _, record := range h.containers {
		container, err := c.LoadContainer(ctx, record.ID)
		if err != nil {
			return h, fmt.Errorf("containerd: %w", err)
		}
		task, err := container.Task(ctx, nil)
		if err != nil {
			continue
		}
		if status, err := task.Status(ctx); err == nil && status.Status == client.Running {
			h.running[record.ID] = true
		}
	}
	var errs [3]error
	h.images, errs[0] = c.ImageService().List(ctx)
	h.leases, errs[1] = c.LeasesService().List(ctx)
	errs[2] = c.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, s snapshots.Info) error {
		if s.Kind == snapshots.KindCommitted {
			h.committed[s.Name] = s.Parent
		} else {
			h.active = append(h.active, s.Name)
		}
		return nil
	})
	return h, errors.Join(errs[:]...)
}

// Life is what is new when a module has been started again, or made anew.
type Life struct {
	Container string // its id
	Made      int64  // when the container was made, in nanoseconds since 1970
	PID       int    // of its process, on the real machine; 0 when none runs
}

// Lives are the modules' by name, asked from containerd and the kernel.
func (d *Device) Lives() (map[string]Life, error) {
	h, err := d.held()
	if err != nil {
		return nil, err
	}
	lives := map[string]Life{}
	for _, c := range h.containers {
		lives[c.Labels[labelModule]] = Life{Container: c.ID, Made: c.CreatedAt.UnixNano()}
	}
	for _, p := range d.processes(isModule) {
		for module, life := range lives {
			if life.Container == filepath.Base(p.cgroup) {
				life.PID = p.pid
				lives[module] = life
			}
		}
	}
	return lives, nil
}

// collect makes containerd collect its garbage, and waits for it: the deletion of
// a lease may ask for that.
func collect(ctx context.Context, c *client.Client) error {
	lease, err := c.LeasesService().Create(ctx, leases.WithRandomID(), leases.WithExpiration(time.Minute))
	if err != nil {
		return err
	}
	return c.LeasesService().Delete(ctx, lease, leases.SynchronousDelete)
}

// Census counts now.
func (d *Device) Census() (Census, error) {
	h, err := d.held()
	if err != nil {
		return Census{}, err
	}
	c := Census{
		Containers: len(h.containers), Tasks: len(h.running), Active: len(h.active), Committed: len(h.committed),
		Images: len(h.images), Leases: len(h.leases),
		Shims: len(d.processes(isShim)), Modules: len(d.processes(isModule)), Cgroups: len(d.cgroups()),
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", d.Machine.PID))
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(string(mounts)) { // other tests' mounts were inherited
		if strings.Contains(line, d.Dir) || d.Disk != nil && strings.Contains(line, d.Disk.Dir) {
			c.Mounts++
		}
	}
	networks := map[string]bool{}
	for _, p := range d.processes(func(process) bool { return true }) {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.pid)); err == nil {
			networks[ns] = true
		}
	}
	c.Networks = len(networks)
	agents := d.processes(func(p process) bool { return strings.HasPrefix(p.command, d.agent+" agent ") })
	if len(agents) != 1 {
		return c, fmt.Errorf("%d agents run", len(agents))
	}
	c.Agent = agents[0].pid
	threads, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(c.Agent), "task"))
	if err != nil {
		return c, err
	}
	c.Threads = len(threads)
	if err := d.count(&c); err != nil {
		return c, err
	}
	return c, nil
}

// count counts what the agent has open, and its goroutines.
func (d *Device) count(c *Census) error {
	open, err := descriptors(c.Agent)
	if err != nil {
		return err
	}
	for _, n := range open {
		c.FDs += n
	}
	c.Registry, c.Packs, c.Open = open[kindRegistry], open[kindPack], enumerate(open)
	c.FDs -= c.Registry + c.Packs
	c.Goroutines, _, err = d.Controller.Goroutines()
	c.Goroutines -= 2 * c.Registry
	return err
}
