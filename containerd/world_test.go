package containerd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/tidemark-edge/tidemark/containerd"
	"github.com/tidemark-edge/tidemark/containerd/store"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

var (
	_ reconciler.Runtime = (*containerd.Runtime)(nil)
	_ reconciler.Store   = (*store.Store)(nil)
)

// world is what the scenarios of one version of containerd share.
type world struct {
	daemon   *harness.Daemon
	registry string
	probe    []byte       // the program
	image    schema.Image // with the program as its entry point
}

func newWorld(t testing.TB, version string) *world {
	w := &world{daemon: harness.Containerd(t, version), registry: harness.ReferrersRegistry(t), probe: buildProbe(t)}
	w.image = w.push(t, "probe", nil, v1.Config{Entrypoint: []string{"/main"}})
	return w
}

// built is the program, which is the same for all.
var built struct {
	once    sync.Once
	program []byte
	err     error
}

func buildProbe(t testing.TB) []byte {
	t.Helper()
	built.once.Do(func() {
		file := filepath.Join(t.TempDir(), "main")
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "./testdata/probe")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the probe: %w: %s", err, out)
			return
		}
		built.program, built.err = os.ReadFile(file)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.program
}

// push makes an image with the probe at /main and other files.
func (w *world) push(t testing.TB, repo string, files map[string]string, config v1.Config) schema.Image {
	t.Helper()
	all := map[string][]byte{"main": w.probe}
	for name, content := range files {
		all[name] = []byte(content)
	}
	pushing.Lock()
	defer pushing.Unlock()
	return harness.PushFiles(t, w.registry, repo, all, config)
}

// stage is one test's own namespace of containerd.
type stage struct {
	*world
	*containerd.Runtime
	*store.Store
	t        testing.TB
	ctx      context.Context
	config   schema.ContainerdConfig
	image    schema.Image // what module declares; at first the world's
	attached []string     // what Attach was told
}

var stages atomic.Int64

// stage opens a Runtime on a namespace that nobody has used: runc keeps its
// state in one folder for each namespace, whichever daemon asks.
func (w *world) stage(t testing.TB) *stage {
	t.Helper()
	s := &stage{world: w, t: t, ctx: t.Context(), image: w.image}
	s.config = schema.ContainerdConfig{
		Address: w.daemon.Address, Runc: w.daemon.Runc,
		Namespace: fmt.Sprintf("tmtest-%d-%d", os.Getpid(), stages.Add(1)),
	}
	s.open(t.TempDir())
	t.Cleanup(s.clear)
	return s
}

// open replaces the Runtime by a new one, as when an agent is started again.
func (s *stage) open(stateDir string) {
	s.t.Helper()
	if s.Runtime != nil {
		if err := s.Close(); err != nil {
			s.t.Fatal(err)
		}
	}
	r, err := containerd.Open(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	r.StateDir, r.RunDir = stateDir, filepath.Join(stateDir, "run")
	r.Attach = func(_ context.Context, module string, pid int) error {
		s.attached = append(s.attached, fmt.Sprintf("%s %d", module, pid))
		return nil
	}
	s.Runtime, s.Store = r, r.Images
}

// clear removes everything from the namespace, and what a namespace leaves
// behind on the machine.
func (s *stage) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	observed, err := s.Observe(ctx)
	if err != nil {
		s.t.Errorf("clear: %v", err)
	}
	for _, c := range observed.Containers {
		if err := s.Remove(ctx, c.ID); err != nil {
			s.t.Errorf("clear: %v", err)
		}
	}
	if err := s.Prune(ctx, nil); err != nil {
		s.t.Errorf("clear: %v", err)
	}
	if err := s.Close(); err != nil {
		s.t.Errorf("clear: %v", err)
	}
	os.Remove(filepath.Join("/run/containerd/runc", s.config.Namespace))
	for _, dir := range s.cgroups() {
		os.Remove(dir)
	}
}

// cgroups are the directories of the namespace in every hierarchy.
func (s *stage) cgroups() []string {
	one, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", s.config.Namespace))
	two, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", s.config.Namespace))
	return append(one, two...)
}

// cgroupFile reads a file of a container's group; the names are those of
// version 1 and of version 2.
func (s *stage) cgroupFile(id, controller, one, two string) string {
	s.t.Helper()
	file := filepath.Join("/sys/fs/cgroup", s.config.Namespace, id, two)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		file = filepath.Join("/sys/fs/cgroup", controller, s.config.Namespace, id, one)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// proof is a real proof that image is signed.
func proof(t testing.TB, image schema.Image) signing.Verified {
	t.Helper()
	v, err := signingtest.Accept(t, image).Verify(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// module declares the probe, doing what args say.
func (s *stage) module(name string, args ...string) schema.Module {
	return schema.Module{
		Name: name, Image: s.image, Status: schema.StatusRunning, Args: args, Network: schema.NetworkNone,
		Stop: schema.Stop{Signal: "SIGTERM", Timeout: schema.Duration(time.Second)},
	}
}

// run pulls and starts a module, and returns its container.
func (s *stage) run(m schema.Module) schema.Container {
	s.t.Helper()
	p := proof(s.t, m.Image)
	if err := s.Pull(s.ctx, p); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Start(s.ctx, m, "c0ffee", p); err != nil {
		s.t.Fatal(err)
	}
	return s.find(m.Name)
}

// find observes the one container of a module.
func (s *stage) find(module string) schema.Container {
	s.t.Helper()
	c, err := s.look(module)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *stage) look(module string) (schema.Container, error) {
	observed, err := s.Observe(s.ctx)
	if err != nil {
		return schema.Container{}, err
	}
	for _, c := range observed.Containers {
		if c.Module == module {
			return c, nil
		}
	}
	return schema.Container{}, fmt.Errorf("no container of %s among %+v", module, observed.Containers)
}

// await observes until the module's container is in that state.
func (s *stage) await(module, state string) schema.Container {
	s.t.Helper()
	var found schema.Container
	harness.Eventually(s.t, func() (err error) {
		if found, err = s.look(module); err != nil {
			return err
		}
		if found.State != state {
			return fmt.Errorf("%s is %+v, want %s", module, found, state)
		}
		return nil
	})
	return found
}

// output waits until a module has printed a line with text in it.
func (s *stage) output(module, text string) string {
	s.t.Helper()
	var all string
	harness.Eventually(s.t, func() error {
		b, err := os.ReadFile(filepath.Join(s.StateDir, "logs", module+".log"))
		if err != nil {
			return err
		}
		if all = string(b); !strings.Contains(all, text) {
			return fmt.Errorf("%s has printed %.500q, want %q", module, all, text)
		}
		return nil
	})
	return all
}

// report is what a module sees that runs "report".
type report struct {
	UID, GID    int
	PID         int
	Args        []string
	Hostname    string
	Cwd         string
	Groups      []int
	Env         []string
	Status      map[string]string
	OOMScoreAdj string
	Mounts      []string
	Interfaces  map[string]string
	Devices     []string
	Tries       map[string]string
}

func (s *stage) report(m schema.Module) report {
	s.t.Helper()
	m.Args = []string{"report"}
	s.run(m)
	out := s.output(m.Name, "}\n")
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		s.t.Fatalf("%v: %.300s", err, out)
	}
	return r
}

// raw is a client of the daemon for what a Runtime does not do.
func (s *stage) raw() *client.Client {
	s.t.Helper()
	c, err := client.New(s.config.Address, client.WithDefaultNamespace(s.config.Namespace))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// ctr runs the daemon's own command line.
func (s *stage) ctr(args ...string) string {
	s.t.Helper()
	args = append([]string{"--address", s.daemon.Address, "--namespace", s.config.Namespace}, args...)
	var stderr strings.Builder
	cmd := exec.Command(harness.Tool(s.t, "ctr-"+s.daemon.Version), args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("ctr %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// remove removes the module's container.
func (s *stage) remove(module string) {
	s.t.Helper()
	if err := s.Remove(s.ctx, s.find(module).ID); err != nil {
		s.t.Fatal(err)
	}
}

// inNetwork lists the interfaces of the network namespace of pid.
func inNetwork(t testing.TB, pid int) string {
	t.Helper()
	out, err := exec.Command("nsenter", "--net=/proc/"+strconv.Itoa(pid)+"/ns/net", "cat", "/proc/net/dev").Output()
	if err != nil {
		t.Error(err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return strings.Join(names, " ")
}
