package containerd_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

func daemonRestart(s *stage) {
	m := s.module("sensor", "wait")
	before := s.run(m)
	ctx, cancel := context.WithCancel(s.ctx)
	var kicks atomic.Int64
	watching := make(chan struct{})
	go func() { defer close(watching); s.Watch(ctx, func() { kicks.Add(1) }) }()
	defer func() { cancel(); <-watching }()

	s.daemon.Kill()
	if _, err := s.Observe(s.ctx); err == nil {
		s.t.Error("observed without a daemon")
	}
	s.daemon.Start()
	harness.Eventually(s.t, func() error {
		after, err := s.look("sensor")
		if err != nil {
			return err
		}
		if diff := cmp.Diff(before, after); diff != "" {
			return fmt.Errorf("after the daemon was started again: %s", diff)
		}
		return nil
	})
	// Until Watch listens again, events are lost; each kill makes another.
	harness.Eventually(s.t, func() error {
		n := kicks.Load()
		c, err := s.look("sensor")
		if err != nil {
			return err
		}
		if c.State == schema.StateRunning {
			syscall.Kill(c.PID, syscall.SIGKILL)
			s.await("sensor", schema.StateExited)
		} else if err := s.Restart(s.ctx, c.ID, 1); err != nil {
			return err
		}
		deadline := time.Now().Add(time.Second)
		for kicks.Load() == n && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if kicks.Load() == n {
			return fmt.Errorf("no kick")
		}
		return nil
	})
}

// kicks are events, and no more than those.
func watch(s *stage) {
	ctx, cancel := context.WithCancel(s.ctx)
	kicks := make(chan struct{}, 1000)
	done := make(chan struct{})
	go func() { defer close(done); s.Watch(ctx, func() { kicks <- struct{}{} }) }()
	c := s.run(s.module("sensor", "wait"))
	harness.Eventually(s.t, func() error { // it listens
		for range 3 {
			s.Remove(s.ctx, c.ID)
			s.run(s.module("sensor", "wait"))
		}
		if len(kicks) == 0 {
			return fmt.Errorf("no kick")
		}
		return nil
	})
	for len(kicks) > 0 {
		<-kicks
	}
	syscall.Kill(s.find("sensor").PID, syscall.SIGKILL)
	select {
	case <-kicks:
	case <-time.After(time.Minute):
		s.t.Error("a module ended, and nobody was told")
	}
	cancel()
	<-done
}

// What the Runtime does itself is no news: fifty modules that are replaced would
// be looked at hundreds of times.
func ownDoingKicksNobody(s *stage) {
	ctx, cancel := context.WithCancel(s.ctx)
	kicks := make(chan struct{}, 1000)
	done := make(chan struct{})
	go func() { defer close(done); s.Watch(ctx, func() { kicks <- struct{}{} }) }()
	<-kicks // it listens
	m := s.module("sensor", "wait")
	const rounds = 5
	for range rounds {
		s.Remove(s.ctx, s.run(m).ID)
	}
	c := s.run(m)
	for range rounds {
		if err := s.Stop(s.ctx, c.ID, "test"); err != nil {
			s.t.Fatal(err)
		}
		if err := s.Restart(s.ctx, c.ID, 1); err != nil {
			s.t.Fatal(err)
		}
	}
	// The shim says some things late: that is a look too many, now and then.
	if n := len(kicks); n > 4*rounds {
		s.t.Errorf("%d kicks for %d actions", n, 4*rounds)
	}
	for len(kicks) > 0 {
		<-kicks
	}
	syscall.Kill(s.find("sensor").PID, syscall.SIGKILL)
	select {
	case <-kicks:
	case <-time.After(time.Minute):
		s.t.Error("a module ended, and nobody was told")
	}
	cancel()
	<-done
}

// shim finds the shim of a process, which is its parent.
func shim(s *stage, pid int) int {
	s.t.Helper()
	b, err := os.ReadFile("/proc/" + itoa(pid) + "/stat")
	if err != nil {
		s.t.Fatal(err)
	}
	var parent int
	var state string
	if _, err := fmt.Sscanf(string(b[strings.LastIndexByte(string(b), ')')+1:]), " %s %d", &state, &parent); err != nil || parent < 2 {
		s.t.Fatalf("parent of %d: %d, %v", pid, parent, err)
	}
	return parent
}

// A shim that died takes its module with it; the container stays and can be
// run again, or removed.
func deadShim(s *stage) {
	m := s.module("sensor", "wait")
	c := s.run(m)
	syscall.Kill(shim(s, c.PID), syscall.SIGKILL)
	harness.Eventually(s.t, func() error {
		got := s.find("sensor")
		if got.State == schema.StateRunning {
			return fmt.Errorf("still %+v", got)
		}
		return s.Restart(s.ctx, c.ID, 1)
	})
	again := s.find("sensor")
	if again.State != schema.StateRunning || again.ID != c.ID || again.Restarts != 1 {
		s.t.Errorf("run again: %+v", again)
	}
	syscall.Kill(shim(s, again.PID), syscall.SIGKILL)
	if err := s.Remove(s.ctx, c.ID); err != nil { // at once, before anybody has noticed
		s.t.Fatal(err)
	}
	harness.Eventually(s.t, func() error {
		if _, err := os.Stat("/proc/" + itoa(again.PID)); err == nil {
			return fmt.Errorf("its process is still there")
		}
		return nil
	})
}

// A reboot ends daemon, shims and modules, and empties /run.
func reboot(s *stage) {
	make := identity(s.t)
	s.Identity = make
	m := s.module("sensor")
	s.report(m)
	c := s.find("sensor")
	dir, _, _ := make(s.ctx, "sensor", 0, 0)

	s.daemon.Kill()
	syscall.Kill(shim(s, c.PID), syscall.SIGKILL)
	syscall.Kill(c.PID, syscall.SIGKILL)
	os.RemoveAll(dir)
	os.RemoveAll(filepath.Join(s.StateDir, "hosts"))
	os.Truncate(filepath.Join(s.StateDir, "logs", "sensor.log"), 0)
	s.daemon.Start()

	harness.Eventually(s.t, func() error {
		got, err := s.look("sensor")
		if err != nil {
			return err
		}
		if got.State == schema.StateRunning || got.Hash != c.Hash {
			return fmt.Errorf("after the reboot: %+v", got)
		}
		return s.Restart(s.ctx, c.ID, 1)
	})
	if out := s.output("sensor", "}\n"); !strings.Contains(out, `"credential":"ok","hosts":"ok"`) {
		s.t.Errorf("%.2000s", out)
	}
}

// Whatever is left of a container that was half made or half removed goes,
// and a Start in its place succeeds.
func leftovers(s *stage) {
	m := s.module("sensor", "wait")
	raw := s.raw()
	halves := map[string]func(id string) error{
		"only the container record": func(id string) error {
			if err := s.kill9(id); err != nil {
				return err
			}
			return raw.SnapshotService("overlayfs").Remove(s.ctx, id)
		},
		"record and snapshot": func(id string) error { return s.kill9(id) },
		"only the snapshot": func(id string) error {
			if err := s.kill9(id); err != nil {
				return err
			}
			return raw.ContainerService().Delete(s.ctx, id)
		},
		"a task without its record": func(id string) error { return raw.ContainerService().Delete(s.ctx, id) },
	}
	for name, half := range halves {
		for _, end := range []string{"start", "remove"} {
			c := s.run(m)
			if err := half(c.ID); err != nil {
				s.t.Fatalf("%s: %v", name, err)
			}
			if end == "start" {
				if got := s.run(m); got.State != schema.StateRunning {
					s.t.Errorf("%s, then Start: %+v", name, got)
				}
			}
			if err := s.Remove(s.ctx, c.ID); err != nil {
				s.t.Errorf("%s, then Remove: %v", name, err)
			}
			if o, err := s.Observe(s.ctx); err != nil || len(o.Containers) != 0 {
				s.t.Errorf("%s: left %+v, %v", name, o, err)
			}
		}
	}
}

// kill9 ends the task of a container and deletes it.
func (s *stage) kill9(id string) error {
	out, err := exec.Command(harness.Tool(s.t, "ctr-"+s.daemon.Version), "--address", s.daemon.Address, "--namespace", s.config.Namespace, "task", "delete", "--force", id).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// A task that is made, and not started, is what an agent leaves that is killed
// between the two.
func halfMade(s *stage) {
	m := s.module("sensor", "wait")
	p := proof(s.t, m.Image)
	if err := s.Pull(s.ctx, p); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.Attach = func(context.Context, string, int) error { cancel(); return nil } // the Start that follows is cut off
	if err := s.Start(ctx, m, "c", p); err == nil {
		s.t.Error("started without a context")
	}
	s.Attach = nil
	if o, err := s.Observe(s.ctx); err != nil || len(o.Containers) != 0 {
		s.t.Errorf("left %+v, %v", o, err)
	}
	if got := s.run(m); got.State != schema.StateRunning {
		s.t.Errorf("%+v", got)
	}
}

// leaks are counted over many rounds.
func leaks(s *stage) {
	m := s.module("sensor", "wait")
	m.Limits.Memory = 64 << 20
	m.Stop.Signal = "SIGKILL"
	raw := s.raw()
	count := func() map[string]int {
		n := map[string]int{}
		n["snapshots"] = len(strings.Split(strings.TrimSpace(s.ctr("snapshots", "list")), "\n"))
		n["leases"] = len(strings.Split(strings.TrimSpace(s.ctr("leases", "list")), "\n"))
		n["tasks"] = len(strings.Split(strings.TrimSpace(s.ctr("tasks", "list")), "\n"))
		list, err := raw.ContainerService().List(s.ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		n["containers"] = len(list)
		for _, dir := range s.cgroups() {
			entries, _ := filepath.Glob(filepath.Join(dir, "*.*", "tasks"))
			two, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
			n["cgroups"] += len(entries) + len(two)
		}
		b, _ := os.ReadFile("/proc/self/mounts")
		n["mounts"] = strings.Count(string(b), s.config.Namespace)
		state, _ := filepath.Glob(filepath.Join("/run/containerd/runc", s.config.Namespace, "*"))
		n["runc states"] = len(state)
		bundles, _ := filepath.Glob(filepath.Join(s.daemon.Dir, "state", "io.containerd.runtime.v2.task", s.config.Namespace, "*"))
		n["bundles"] = len(bundles)
		n["threads in other networks"] = strangeThreads()
		return n
	}
	s.run(m)
	s.remove("sensor")
	before := count()
	for range 10 {
		c := s.run(m)
		if err := s.Remove(s.ctx, c.ID); err != nil {
			s.t.Fatal(err)
		}
	}
	harness.Eventually(s.t, func() error {
		if diff := cmp.Diff(before, count()); diff != "" {
			return fmt.Errorf("left after 10 rounds: %s", diff)
		}
		return nil
	})
}

// strangeThreads counts threads of this process in other network namespaces.
func strangeThreads() int {
	own, _ := os.Readlink("/proc/self/ns/net")
	tasks, _ := filepath.Glob("/proc/self/task/*/ns/net")
	n := 0
	for _, t := range tasks {
		if ns, err := os.Readlink(t); err == nil && ns != own {
			n++
		}
	}
	return n
}
