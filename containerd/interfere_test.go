package containerd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// interference is what somebody with containerd's own command line does to
// modules. Each is seen, and mended by what the reconciler does of what is seen.
func interference(s *stage) {
	m := s.module("sensor", "wait")
	for _, c := range []struct {
		what  string
		do    func(id string)
		state string // that is observed then
		mend  func(id string) error
	}{
		{"task kill", func(id string) { s.ctr("task", "kill", "-s", "SIGKILL", id) }, schema.StateExited,
			func(id string) error { return s.Restart(s.ctx, id, 1) }},
		{"task pause", func(id string) { s.ctr("task", "pause", id) }, schema.StatePaused,
			func(id string) error { return s.Restart(s.ctx, id, 1) }},
		{"task delete", func(id string) { s.ctr("task", "delete", "--force", id) }, schema.StateCreated,
			func(id string) error { return s.Restart(s.ctx, id, 1) }},
		{"container delete", func(id string) {
			s.ctr("task", "delete", "--force", id)
			s.ctr("container", "delete", id)
		}, "", func(string) error { return s.Start(s.ctx, m, "c", proof(s.t, m.Image)) }},
	} {
		id := s.run(m).ID
		s.output("sensor", "waiting")
		c.do(id)
		if c.state != "" {
			s.await("sensor", c.state)
		} else if o, err := s.Observe(s.ctx); err != nil || len(o.Containers) > 0 {
			s.t.Errorf("%s: %+v, %v", c.what, o, err)
		}
		if err := c.mend(id); err != nil {
			s.t.Errorf("%s: %v", c.what, err)
		}
		if got := s.find("sensor"); got.State != schema.StateRunning || got.ID != id || got.Drift != "" {
			s.t.Errorf("%s, mended: %+v", c.what, got)
		}
		s.remove("sensor")
	}
}

// Frozen by somebody, a module is seen as such; its restarts are not counted.
func paused(s *stage) {
	c := s.run(s.module("sensor", "wait"))
	s.ctr("task", "pause", c.ID)
	frozen := c
	frozen.State = schema.StatePaused
	if got := s.find("sensor"); got != frozen {
		s.t.Errorf("%+v, want %+v", got, frozen)
	}
	if err := s.Start(s.ctx, s.module("sensor", "wait"), "c", proof(s.t, s.image)); err != nil {
		s.t.Error(err)
	}
	s.open(s.StateDir)
	if err := s.Restart(s.ctx, c.ID, 7); err != nil {
		s.t.Fatal(err)
	}
	if got := s.find("sensor"); got != c {
		s.t.Errorf("%+v, want %+v", got, c)
	}
}

// drift is what was changed of a container's record.
func drift(s *stage) {
	m := s.module("sensor", "wait")
	raw := s.raw()
	for what, c := range map[string]struct {
		change func(id string)
		want   string
	}{
		"a label of its owner's": {func(id string) { s.ctr("container", "label", id, "owner=me") }, ""},
		"how to stop it": {func(id string) { s.ctr("container", "label", id, "tidemark.io/stop-timeout=1h0m0s") },
			"its labels were changed"},
		"its specification": {func(id string) {
			was, err := raw.ContainerService().Get(s.ctx, id)
			if err != nil {
				s.t.Fatal(err)
			}
			var spec specs.Spec
			if err := json.Unmarshal(was.Spec.GetValue(), &spec); err != nil {
				s.t.Fatal(err)
			}
			spec.Process.NoNewPrivileges = false
			changed, err := typeurl.MarshalAny(&spec)
			if err != nil {
				s.t.Fatal(err)
			}
			if _, err := raw.ContainerService().Update(s.ctx, containers.Container{ID: id, Spec: changed}, "spec"); err != nil {
				s.t.Fatal(err)
			}
		}, "its specification was changed"},
	} {
		id := s.run(m).ID
		s.find("sensor") // so that it is known as it was
		c.change(id)
		if got := s.find("sensor"); got.Drift != c.want || got.Module != "sensor" || got.State != schema.StateRunning {
			s.t.Errorf("%s: %+v, want drift %q", what, got, c.want)
		}
		s.open(s.StateDir)
		if got := s.find("sensor"); got.Drift != c.want {
			s.t.Errorf("%s, to another agent: %+v, want drift %q", what, got, c.want)
		}
		s.ctr("task", "kill", "-s", "SIGKILL", id)
		s.await("sensor", schema.StateExited)
		err := s.Restart(s.ctx, id, 1)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			s.t.Errorf("%s: Restart: %v", what, err)
		}
		s.remove("sensor")
		if got := s.run(m); got.Drift != "" {
			s.t.Errorf("%s, replaced: %+v", what, got)
		}
		s.remove("sensor")
	}
}

// beside: two definitions of one module run at the same time, and what becomes
// of the old one is nothing to the new one.
func beside(s *stage) {
	s.Identity = identity(s.t)
	old, fresh := s.module("sensor", "serve"), s.module("sensor", "serve")
	fresh.Env = map[string]string{"VERSION": "2"}
	one := s.run(old)
	if err := s.Start(s.ctx, fresh, "c0ffee2", proof(s.t, fresh.Image)); err != nil {
		s.t.Fatal(err)
	}
	byID := func() map[string]schema.Container {
		o, err := s.Observe(s.ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		all := map[string]schema.Container{}
		for _, c := range o.Containers {
			all[c.ID] = c
		}
		return all
	}
	two := byID()["sensor."+fresh.Hash()[:8]]
	if one.State != schema.StateRunning || two.State != schema.StateRunning || one.ID == two.ID || len(byID()) != 2 {
		s.t.Fatalf("%+v and %+v", one, two)
	}
	if want := fmt.Sprintf("sensor %d,sensor %d", one.PID, two.PID); strings.Join(s.attached, ",") != want {
		s.t.Errorf("attached %v, want %s", s.attached, want)
	}
	harness.Eventually(s.t, func() error { return s.Probe(s.ctx, one, httpProbe("/")) }) // on the same port
	harness.Eventually(s.t, func() error { return s.Probe(s.ctx, two, httpProbe("/")) })
	if err := s.Prune(s.ctx, nil); err != nil {
		s.t.Error(err)
	}
	if err := s.Remove(s.ctx, one.ID); err != nil {
		s.t.Fatal(err)
	}
	if all := byID(); len(all) != 1 || all[two.ID] != two {
		s.t.Errorf("after the old one went: %+v", all)
	}
	if err := s.Probe(s.ctx, two, httpProbe("/")); err != nil {
		s.t.Error(err)
	}
	for _, file := range []string{"/etc/hosts", "/run/tidemark/identity.nk"} {
		if err := s.Probe(s.ctx, two, execProbe("/main", "read", file)); err != nil {
			s.t.Errorf("after the old one went: %v", err)
		}
	}
	if err := s.Stop(s.ctx, two.ID, "for a while"); err != nil {
		s.t.Error(err)
	}
	if err := s.Restart(s.ctx, two.ID, 1); err != nil {
		s.t.Error(err)
	}
}

// killedMidway: containerd dies in the middle of what it was told. When it is
// there again, the same is told again, and no module runs twice.
func killedMidway(s *stage) {
	m := s.module("sensor", "wait")
	p := proof(s.t, m.Image)
	id := s.run(m).ID
	start := func(ctx context.Context) error { return s.Start(ctx, m, "c", p) }
	for _, c := range []struct {
		do    func(context.Context) error
		delay time.Duration // until the daemon dies
	}{
		{func(ctx context.Context) error { return s.Remove(ctx, id) }, 5 * time.Millisecond},
		{func(ctx context.Context) error { return s.Stop(ctx, id, "midway") }, 5 * time.Millisecond},
		{func(ctx context.Context) error { return s.Restart(ctx, id, 1) }, 40 * time.Millisecond},
		{func(ctx context.Context) error { return s.Remove(ctx, id) }, 40 * time.Millisecond},
		{start, 40 * time.Millisecond},
		{start, 150 * time.Millisecond},
	} {
		if c.delay >= 40*time.Millisecond { // there is something to start or to end
			if err := s.Stop(s.ctx, id, "before"); err != nil {
				s.t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(s.ctx)
		done := make(chan error, 1)
		go func() { done <- c.do(ctx) }()
		time.Sleep(c.delay)
		s.daemon.Kill()
		cancel() // what waits for the daemon would wait for long
		<-done
		s.daemon.Start()
		s.converge(m, id)
	}
}

// converge does what a reconciler does until the module runs, once.
func (s *stage) converge(m schema.Module, id string) {
	s.t.Helper()
	harness.Eventually(s.t, func() error {
		o, err := s.Observe(s.ctx)
		if err != nil {
			return err
		}
		if len(o.Containers) == 0 {
			return s.Start(s.ctx, m, "c", proof(s.t, m.Image))
		}
		c := o.Containers[0]
		if c.State != schema.StateRunning {
			if err := s.Restart(s.ctx, c.ID, 1); err != nil {
				_ = s.Remove(s.ctx, c.ID)
				return err
			}
		}
		c = s.find("sensor")
		if members := s.cgroupFile(id, "pids", "cgroup.procs", "cgroup.procs"); c.State != schema.StateRunning || members != itoa(c.PID) {
			return fmt.Errorf("%+v, and in its group %q", c, members)
		}
		return nil
	})
}
