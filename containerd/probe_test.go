package containerd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/typeurl/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

func httpProbe(path string) schema.Probe {
	return schema.Probe{HTTP: &schema.HTTPProbe{Port: 8080, Path: path}, Timeout: schema.Duration(time.Minute)}
}

func execProbe(command ...string) schema.Probe {
	return schema.Probe{Exec: &schema.ExecProbe{Command: command}, Timeout: schema.Duration(time.Minute)}
}

func within(p schema.Probe, timeout time.Duration) schema.Probe {
	p.Timeout = schema.Duration(timeout)
	return p
}

// wants compares the error of a probe.
func wants(t testing.TB, err error, want string) {
	t.Helper()
	if got := fmt.Sprint(err); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func probeNetwork(s *stage) {
	c := s.run(s.module("sensor", "serve"))
	harness.Eventually(s.t, func() error { return s.Probe(s.ctx, c, httpProbe("/")) })
	wants(s.t, s.Probe(s.ctx, c, httpProbe("/sick")), "GET http://127.0.0.1:8080/sick: status 503: out of order")
	wants(s.t, s.Probe(s.ctx, c, within(httpProbe("/slow"), 100*time.Millisecond)), "GET http://127.0.0.1:8080/slow: no answer within 100ms")
	wants(s.t, s.Probe(s.ctx, c, schema.Probe{TCP: &schema.TCPProbe{Port: 8080}}), "<nil>")
	wants(s.t, s.Probe(s.ctx, c, schema.Probe{TCP: &schema.TCPProbe{Port: 8081}}), "connect 127.0.0.1:8081: connection refused")
	if err := s.Probe(s.ctx, c, schema.Probe{NATS: &schema.NATSProbe{Method: "health"}}); err == nil {
		s.t.Error("asked by NATS")
	}
	// What listens on the device is not what listens in the module.
	outside, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	defer outside.Close()
	port := outside.Addr().(*net.TCPAddr).Port
	tcp := schema.Probe{TCP: &schema.TCPProbe{Port: port}}
	wants(s.t, s.Probe(s.ctx, c, tcp), fmt.Sprintf("connect 127.0.0.1:%d: connection refused", port))
	s.HostNetwork = []string{"*"}
	m := s.module("onhost", "wait")
	m.Network = schema.NetworkHost
	wants(s.t, s.Probe(s.ctx, s.run(m), tcp), "<nil>")

	ctx, cancel := context.WithCancel(s.ctx)
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := s.Probe(ctx, c, httpProbe("/slow")); !errors.Is(err, schema.ErrNotAsked) {
		s.t.Errorf("an agent that ends in the middle: %v", err)
	}
	syscall.Kill(c.PID, syscall.SIGKILL)
	s.await("sensor", schema.StateExited)
	for _, p := range []schema.Probe{httpProbe("/"), execProbe("/main", "answer", "0")} {
		if err := s.Probe(s.ctx, c, p); !errors.Is(err, schema.ErrNotAsked) {
			s.t.Errorf("of what has ended: %v", err)
		}
	}
}

func probeRights(s *stage) {
	m := s.module("sensor", "wait")
	m.User, m.Env = "2000:2001", map[string]string{"WHO": "sensor"}
	c := s.run(m)
	wants(s.t, s.Probe(s.ctx, c, execProbe("/main", "rights")),
		"exec /main rights: exit code 1: Uid=2000 Gid=2001 CapEff=0000000000000000 CapBnd=0000000000000000 NoNewPrivs=1 Seccomp=2 / sensor")
}

func probeExec(s *stage) {
	c := s.run(s.module("sensor", "wait"))
	wants(s.t, s.Probe(s.ctx, c, execProbe("/main", "answer", "0", "fine")), "<nil>")
	wants(s.t, s.Probe(s.ctx, c, execProbe("/main", "answer", "2", "no pressure")), "exec /main answer 2 no pressure: exit code 2: no pressure")
	wants(s.t, s.Probe(s.ctx, c, execProbe("/main", "exit", "7")), "exec /main exit 7: exit code 7")
	wants(s.t, s.Probe(s.ctx, c, execProbe("/main", "exit", "137")), "exec /main exit 137: exit code 137, as by SIGKILL")
	for command, want := range map[string]string{
		"/nosuch": "exec /nosuch: the image has no such program",
		"nosuch":  "exec nosuch: the image has no such program in its PATH",
		"/dev":    "exec /dev: it is no program that the module's user may run",
		"/main/x": "exec /main/x: it cannot be run: stat /main/x: not a directory",
	} {
		err := s.Probe(s.ctx, c, execProbe(command))
		wants(s.t, err, want)
		if errors.Is(err, schema.ErrNotAsked) { // it is the definition that is wrong
			s.t.Errorf("%s was not asked", command)
		}
	}
	const rounds = 20
	ask := func() {
		wants(s.t, s.Probe(s.ctx, c, execProbe("/main", "answer", "2", "no pressure")), "exec /main answer 2 no pressure: exit code 2: no pressure")
	}
	for range 10 { // a shim keeps what it has needed once
		ask()
	}
	before := s.probeBase()
	for range rounds {
		ask()
	}
	harness.Eventually(s.t, func() error {
		if diff := cmp.Diff(before, s.probeRemains()); diff != "" {
			return fmt.Errorf("after %d probes: %s", rounds, diff)
		}
		return nil
	})
	if got := s.find("sensor"); got != c {
		s.t.Errorf("the module is %+v, was %+v", got, c)
	}
}

// probeRemains counts what probes could leave.
func (s *stage) probeRemains() map[string]int {
	n := map[string]int{"processes": len(s.processes("sensor")), "threads in other networks": strangeThreads()}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	n["goroutines"] = strings.Count(string(stacks), "probe.(*stream).read(") + strings.Count(string(stacks), "containerd.(*Runtime).probeExec")
	n["descriptors"] = descriptors("self", s.RunDir)
	pipes, _ := filepath.Glob(filepath.Join(s.RunDir, "probes", "*"))
	n["pipes"] = len(pipes)
	if c, err := s.look("sensor"); err == nil && c.PID > 0 {
		n["descriptors of the shim"] = descriptors(itoa(shim(s, c.PID)), "")
	}
	return n
}

// probeBase is what there is before. The other tests that run at the same time
// have goroutines and threads, too, but not for ever.
func (s *stage) probeBase() map[string]int {
	n := s.probeRemains()
	n["goroutines"], n["threads in other networks"] = 0, 0
	return n
}

// descriptors counts what a process has open below a path. Those of processes
// are not counted: Go's library closes them in its own time.
func descriptors(pid, below string) (n int) {
	fds, _ := filepath.Glob("/proc/" + pid + "/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, below) && !strings.Contains(to, "pidfd") {
			n++
		}
	}
	return n
}

// processes are the numbers of all processes of the module's container.
func (s *stage) processes(module string) []uint32 {
	s.t.Helper()
	raw := s.raw()
	defer raw.Close()
	response, err := raw.TaskService().ListPids(s.ctx, &tasks.ListPidsRequest{ContainerID: s.find(module).ID})
	if err != nil {
		s.t.Fatal(err)
	}
	var pids []uint32
	for _, p := range response.Processes {
		pids = append(pids, p.Pid)
	}
	return pids
}

func probeHangs(s *stage) {
	c := s.run(s.module("sensor", "wait"))
	s.output("sensor", "waiting")
	before := s.probeBase()
	for _, command := range []string{"wait", "stubborn", "flood", "family"} {
		wants(s.t, s.Probe(s.ctx, c, within(execProbe("/main", command), 100*time.Millisecond)), "exec /main "+command+": no answer within 100ms")
	}
	wants(s.t, s.Probe(s.ctx, c, execProbe("/main", "answer", "0")), "<nil>")
	harness.Eventually(s.t, func() error {
		if diff := cmp.Diff(before, s.probeRemains()); diff != "" {
			return fmt.Errorf("left: %s", diff)
		}
		return nil
	})
}

func probeHungShim(s *stage) {
	c := s.run(s.module("sensor", "wait"))
	pid := shim(s, c.PID)
	syscall.Kill(pid, syscall.SIGSTOP)
	defer syscall.Kill(pid, syscall.SIGCONT)
	for range 2 { // the second finds the first not cleaned up
		ctx, cancel := context.WithTimeout(s.ctx, 500*time.Millisecond)
		began := time.Now()
		err := s.Probe(ctx, c, execProbe("/main", "answer", "0"))
		cancel()
		if took := time.Since(began); err == nil || took > 20*time.Second {
			s.t.Errorf("%v after %v", err, took)
		}
	}
	syscall.Kill(pid, syscall.SIGCONT)
	harness.Eventually(s.t, func() error { return s.Probe(s.ctx, c, execProbe("/main", "answer", "0")) })
	if all := s.processes("sensor"); len(all) != 1 {
		s.t.Errorf("processes %v", all)
	}
}

// A command that an agent left when it was killed is ended by the next agent's
// first probe with it.
func probeOrphan(s *stage) {
	c := s.run(s.module("sensor", "wait"))
	spec, err := typeurl.MarshalAnyToProto(&specs.Process{Args: []string{"/main", "wait"}, Cwd: "/", NoNewPrivileges: true})
	if err != nil {
		s.t.Fatal(err)
	}
	raw := s.raw().TaskService()
	left := &tasks.ExecProcessRequest{ContainerID: c.ID, ExecID: "tidemark-probe-0123456789abcdef", Spec: spec}
	if _, err := raw.Exec(s.ctx, left); err != nil {
		s.t.Fatal(err)
	}
	if _, err := raw.Start(s.ctx, &tasks.StartRequest{ContainerID: c.ID, ExecID: left.ExecID}); err != nil {
		s.t.Fatal(err)
	}
	if all := s.processes("sensor"); len(all) != 2 {
		s.t.Fatalf("processes %v", all)
	}
	s.open(s.StateDir)
	s.find("sensor")
	wants(s.t, s.Probe(s.ctx, c, execProbe("/main", "answer", "0")), "<nil>")
	if all := s.processes("sensor"); len(all) != 1 {
		s.t.Errorf("processes %v", all)
	}
}
