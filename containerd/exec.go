package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tidemark-edge/tidemark/containerd/probe"
	"github.com/tidemark-edge/tidemark/schema"
)

// Bounds on what the daemon, a shim and runc may take for a command; a
// healthy, slow device needs a second.
const (
	execTimeout  = 20 * time.Second // to make and start it
	reapTimeout  = 30 * time.Second // to end and delete one that is not wanted any more
	deletingTime = 5 * time.Second  // to delete one that has ended
)

// command is a process of ours in a container, beside the module's.
type command struct {
	container string
	id        string // exec id
}

// probeExec runs a command in the container. Exit code 0 is success.
func (r *Runtime) probeExec(ctx context.Context, c schema.Container, p schema.ExecProbe, timeout time.Duration) error {
	if len(p.Command) == 0 || p.Command[0] == "" {
		return errors.New("exec: no command")
	}
	cmd := &command{container: c.ID, id: execID(p.Command)}
	unlock, err := r.busy.Lock(ctx, "exec "+cmd.container+" "+cmd.id) // also while the one before is cleaned up
	if err != nil {
		return probe.Failed(p.Command, fmt.Errorf("%w: %w", schema.ErrNotAsked, err))
	}
	r.sweep(c.ID, c.PID, func() { r.reapAll(ctx, c.ID) })
	out := r.openAnswer(cmd)
	code, err := r.runCommand(ctx, cmd, p.Command, out, timeout)
	if err == nil {
		if err = r.deleteCommand(ctx, cmd); err == nil {
			unlock()
			return probe.Ended(p.Command, code, out.Close())
		}
	}
	// Nobody waits for a shim that hangs, but the next one with this command.
	go func() {
		defer unlock()
		defer out.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reapTimeout)
		defer cancel()
		r.reap(ctx, cmd)
	}()
	if errdefs.IsUnavailable(err) || errors.Is(err, errNoProcess) {
		err = fmt.Errorf("%w: %w", schema.ErrNotAsked, err)
	}
	return probe.Failed(p.Command, err)
}

// openAnswer makes what a command prints into; nil where that is nowhere.
func (r *Runtime) openAnswer(cmd *command) *probe.Answer {
	if r.RunDir == "" {
		return nil
	}
	return probe.OpenAnswer(filepath.Join(r.RunDir, "probes"), cmd.container+"."+cmd.id)
}

// execPrefix is what the exec ids of our commands begin with.
const execPrefix = "tidemark-probe-"

// execID names the process of a command; the same for the same one, so that
// there is never a second.
func execID(args []string) string {
	sum := sha256.Sum256([]byte(strings.Join(args, "\x00")))
	return execPrefix + hex.EncodeToString(sum[:8])
}

// runCommand makes, starts and waits for a command, and returns its exit code.
func (r *Runtime) runCommand(ctx context.Context, cmd *command, args []string, out *probe.Answer, timeout time.Duration) (code uint32, err error) {
	starting, cancel := context.WithTimeoutCause(ctx, execTimeout, fmt.Errorf("not started within %v", execTimeout))
	defer cancel()
	process, err := r.processOf(starting, cmd.container, args)
	if err != nil {
		return 0, err
	}
	request := &tasks.ExecProcessRequest{ContainerID: cmd.container, ExecID: cmd.id, Spec: process}
	request.Stdout, request.Stderr = out.Names()
	_, err = r.client.TaskService().Exec(starting, request)
	if errdefs.IsAlreadyExists(errgrpc.ToNative(err)) { // what could not be cleaned up the last time
		r.reap(starting, cmd)
		_, err = r.client.TaskService().Exec(starting, request)
	}
	if err != nil {
		return 0, r.whyNot(starting, cmd, err)
	}
	_, err = r.client.TaskService().Start(starting, &tasks.StartRequest{ContainerID: cmd.container, ExecID: cmd.id})
	if err != nil {
		return 0, r.whyNot(starting, cmd, err)
	}
	waiting, cancel := context.WithTimeoutCause(ctx, timeout, noAnswer(timeout))
	defer cancel()
	ended, err := r.client.TaskService().Wait(waiting, &tasks.WaitRequest{ContainerID: cmd.container, ExecID: cmd.id})
	if err != nil {
		return 0, cause(waiting, err)
	}
	return ended.ExitStatus, nil
}

// errNoProcess says that there is nobody to ask.
var errNoProcess = errors.New("its process does not run")

// whyNot is why a command could not be run: runc has many words for a container
// that has ended, or is frozen.
func (r *Runtime) whyNot(ctx context.Context, cmd *command, err error) error {
	if p, e := r.process(ctx, cmd.container); e == nil && p.GetStatus() != task.Status_RUNNING {
		return errNoProcess
	}
	return cause(ctx, err)
}

// cause is why a call ended: what ended its context, or else its error. Daemon
// and shim know of the deadline, may be a moment faster, and have many words for
// it.
func cause(ctx context.Context, err error) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < 5*time.Millisecond {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errgrpc.ToNative(err)
}

// processOf is the module's own process, with another command: its user,
// environment and directory, and no more rights than it has.
func (r *Runtime) processOf(ctx context.Context, id string, args []string) (*anypb.Any, error) {
	container, err := r.client.ContainerService().Get(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("look for its container: %w", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(container.Spec.GetValue(), &spec); err != nil {
		return nil, fmt.Errorf("read its specification: %w", err)
	}
	if spec.Process == nil {
		return nil, errors.New("its specification has no process")
	}
	spec.Process.Args, spec.Process.Terminal = args, false
	return typeurl.MarshalAnyToProto(spec.Process)
}

// deleteCommand deletes a command that has ended.
func (r *Runtime) deleteCommand(ctx context.Context, cmd *command) error {
	ctx, cancel := context.WithTimeout(ctx, deletingTime)
	defer cancel()
	_, err := r.client.TaskService().DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: cmd.container, ExecID: cmd.id})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete it: %w", err)
	}
	return nil
}

// reap ends a command with all that it has started, and deletes it. It tries
// until it is gone, or its container's task is, or ctx ends.
func (r *Runtime) reap(ctx context.Context, cmd *command) {
	for ctx.Err() == nil {
		response, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: cmd.container, ExecID: cmd.id})
		if errdefs.IsNotFound(errgrpc.ToNative(err)) {
			return
		}
		if p := response.GetProcess(); p != nil && p.Pid > 0 && p.ExitedAt.AsTime().Year() <= 1970 {
			killSession(int(p.Pid))
		}
		_, _ = r.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: cmd.container, ExecID: cmd.id, Signal: uint32(syscall.SIGKILL)})
		if r.deleteCommand(ctx, cmd) == nil {
			return
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		}
	}
}

// reapAll ends the commands that an agent left in a container when it was
// killed. What cannot be looked at now is left.
func (r *Runtime) reapAll(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, deletingTime)
	defer cancel()
	response, err := r.client.TaskService().ListPids(ctx, &tasks.ListPidsRequest{ContainerID: id})
	if err != nil {
		return
	}
	for _, p := range response.Processes {
		var details options.ProcessDetails
		if p.Info == nil || p.Info.UnmarshalTo(&details) != nil || !strings.HasPrefix(details.ExecID, execPrefix) {
			continue
		}
		r.reap(ctx, &command{container: id, id: details.ExecID})
	}
}

// killSession ends the process group that a command of runc's leads, which
// holds what a shell has started.
func killSession(pid int) {
	if group, err := unix.Getpgid(pid); err == nil && group == pid {
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
}
