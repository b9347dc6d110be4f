//go:build bench

package bench

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

const crashes = 32 // modules, each of which crashes once for the agent and once for the bare client

// measureRestart takes the time from when a module is killed to the first
// statement of the main that takes its place. Each module's first restart is
// taken, which has no back-off here. A bare client that is told of the exit
// restarts the same container in turns; what lies between the kill and the exit
// is the same for both.
func measureRestart(t *testing.T, f *table) {
	r := newRig(t)
	image := r.image("module")
	modules := map[string]string{}
	for i := range crashes {
		modules[fmt.Sprintf("m%03d", i)] = fmt.Sprintf("image: %q, restart: {policy: \"always\", min: \"0s\"}", image)
	}
	r.declare(modules)
	r.startHub()
	r.startAgent()
	conn := r.dial()
	r.healthy(conn)

	bare := r.bareClient()
	exits := bare.exits()
	var ours, theirs []float64
	for i := range crashes {
		module := fmt.Sprintf("m%03d", i)
		theirs = append(theirs, ms(r.bareRestart(bare, exits, module)))
		harness.Eventually(t, func() error { return known(conn, bare, module) })
		crashed, _ := bare.crash(bare.record(module))
		ours = append(ours, ms(r.beganAfter(module, crashed)))
		harness.Eventually(t, func() error { return known(conn, bare, module) })
	}
	total, least := percentile(ours, 50), percentile(theirs, 50)
	f.add("restart_p50_ms", total, "ms", "kill of a module to its new main(), no back-off, beside %d modules; %d first restarts, containerd %s", crashes-1, crashes, r.daemon.Version)
	f.add("restart_p99_ms", percentile(ours, 99), "ms", "the same, worst of %d", crashes)
	f.add("bare_restart_p50_ms", least, "ms", "a bare containerd client, told of the exit by containerd, restarts the same container")
	f.add("restart_own_share_p50_ms", total-least, "ms", "the difference of the two medians")
}

// bareRestart has a module crash while the agent is halted.
func (r *rig) bareRestart(bare bare, exits <-chan *events.TaskExit, module string) time.Duration {
	defer r.halt()()
	record := bare.record(module)
	crashed, pid := bare.crash(record)
	for late := time.After(time.Minute); pid != 0; {
		select {
		case exit := <-exits:
			if int(exit.Pid) == pid {
				pid = 0
			}
		case <-late:
			r.t.Fatalf("containerd does not say that %s ended", module)
		}
	}
	if err := bare.restart(record); err != nil {
		r.t.Fatal(err)
	}
	return r.beganAfter(module, crashed)
}

// exits are the ends of processes, as containerd tells them to whoever listens.
func (b bare) exits() <-chan *events.TaskExit {
	ctx, stop := context.WithCancel(b.ctx)
	b.r.t.Cleanup(stop)
	envelopes, _ := b.EventService().Subscribe(ctx, `topic=="/tasks/exit"`)
	if _, err := b.Version(ctx); err != nil { // answered when the subscription holds
		b.r.t.Fatal(err)
	}
	exits := make(chan *events.TaskExit, 64)
	go func() {
		for e := range envelopes {
			if v, err := typeurl.UnmarshalAny(e.Event); err == nil {
				if exit, ok := v.(*events.TaskExit); ok {
					exits <- exit
				}
			}
		}
	}()
	return exits
}

// crash kills a module and returns when.
func (b bare) crash(record containers.Container) (at time.Time, pid int) {
	pid, err := b.pid(record)
	at = time.Now()
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		b.r.t.Fatalf("kill %s: %v", record.ID, err)
	}
	return at, pid
}

// known is nil when the agent reports the module's process.
func known(conn *nats.Conn, bare bare, module string) error {
	got, err := report(conn)
	if err != nil {
		return err
	}
	pid, err := bare.pid(bare.record(module))
	if m := got.Modules[module]; err == nil && (m.PID != pid || m.RuntimeStatus != schema.RuntimeRunning) {
		err = fmt.Errorf("%s is reported as process %d, %s; it is %d", module, m.PID, m.RuntimeStatus, pid)
	}
	return err
}
