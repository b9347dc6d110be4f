package containerd

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/schema"
)

// Bounds on what the daemon, a shim and runc may take; a healthy, slow device
// needs a few seconds.
const (
	launchTimeout = 2 * time.Minute  // to make and start a task
	killTimeout   = 20 * time.Second // from SIGKILL to the end
	deleteTimeout = 20 * time.Second // to delete a task that has ended
	retryPause    = 50 * time.Millisecond
)

// launch makes the task of a container that has none, and starts it. Before
// its first instruction, Attach is told of its network.
func (r *Runtime) launch(ctx context.Context, id string, rec record, rootfs []mount.Mount) (err error) {
	stdout, stderr := r.openLog(rec.module)
	ctx, cancel := context.WithTimeout(ctx, launchTimeout)
	defer cancel()
	request := &tasks.CreateTaskRequest{ContainerID: id, Stdout: stdout, Stderr: stderr}
	for _, m := range rootfs {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	if err := r.bury(ctx, id); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			late := ctx.Err() != nil // its shim may hang
			ctx, cancel := detached(ctx)
			defer cancel()
			// What cannot be cleaned up now, the next Start or Restart cleans up.
			if r.endTask(ctx, id, syscall.SIGKILL, 0) == nil && late {
				_ = r.sweepAway(ctx, id, "")
			}
		}
	}()
	pid, err := r.createTask(ctx, request)
	for schema.IsNoRoom(err) && r.Images.Crumble(ctx) == nil {
		pid, err = r.createTask(ctx, request)
	}
	if err != nil {
		return err
	}
	failpoint.Reach("containerd.created")
	if err := r.connect(ctx, rec, pid); err != nil {
		return err
	}
	r.made(id, pid)
	failpoint.Reach("containerd.attached")
	if _, err := r.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: id}); err != nil {
		return fmt.Errorf("start its process: %w", errgrpc.ToNative(err))
	}
	return nil
}

// createTask makes a task that is not started yet, and returns the number of
// its process. What stands in its way makes way: a task of a container whose
// record is gone, one that containerd is cleaning up after its shim died, and
// debris.
func (r *Runtime) createTask(ctx context.Context, request *tasks.CreateTaskRequest) (pid int, err error) {
	id := request.ContainerID
	waiting, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	for {
		created, err := r.client.TaskService().Create(ctx, request)
		if err = errgrpc.ToNative(err); err == nil {
			return int(created.Pid), nil
		}
		inTheWay := bundleIn(err, r.config.Namespace, id)
		if inTheWay == "" && !errdefs.IsAlreadyExists(err) || waiting.Err() != nil {
			return 0, fmt.Errorf("make its process: %w", err)
		}
		if err := r.endTask(ctx, id, syscall.SIGKILL, 0); err != nil {
			return 0, err
		}
		if inTheWay != "" {
			if err := r.sweepAway(ctx, id, inTheWay); err != nil {
				return 0, err
			}
		}
		select {
		case <-time.After(retryPause):
		case <-waiting.Done():
		}
	}
}

// endTask ends the task of a container, if there is one, and deletes it: sig,
// and SIGKILL after grace.
func (r *Runtime) endTask(ctx context.Context, id string, sig syscall.Signal, grace time.Duration) error {
	p, err := r.process(ctx, id)
	if err != nil {
		return err
	}
	if p == nil {
		// A shim may still be there that containerd, when it was killed, had told
		// to delete the task, and not yet to go.
		return r.deleteTask(ctx, id)
	}
	// What goes wrong here may do so because the process ends by itself at this
	// moment, or because its shim is dead; deleting tells.
	_ = r.endProcess(ctx, p, sig, grace)
	if err := ctx.Err(); err != nil {
		return err
	}
	failpoint.Reach("containerd.killed")
	return r.deleteTask(ctx, id)
}

// endProcess ends the first process of a task, and with it all others: sig,
// and SIGKILL after grace. One that has ended is left alone.
func (r *Runtime) endProcess(ctx context.Context, p *task.Process, sig syscall.Signal, grace time.Duration) error {
	switch p.Status {
	case task.Status_RUNNING, task.Status_PAUSED, task.Status_PAUSING:
		if p.Status != task.Status_RUNNING { // a frozen process takes no signal
			_, _ = r.client.TaskService().Resume(ctx, &tasks.ResumeTaskRequest{ContainerID: p.ID})
		}
		if sig != syscall.SIGKILL && r.kill(ctx, p.ID, sig) == nil && r.awaitEnd(ctx, p.ID, grace) == nil {
			return nil
		}
	case task.Status_CREATED, task.Status_UNKNOWN:
	default:
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	failpoint.Reach("containerd.signalled")
	killed := r.kill(ctx, p.ID, syscall.SIGKILL)
	if err := r.awaitEnd(ctx, p.ID, killTimeout); err != nil {
		return fmt.Errorf("wait for its end: %w", errors.Join(err, killed))
	}
	return nil
}

// process is the task of a container; nil when there is none.
func (r *Runtime) process(ctx context.Context, id string) (*task.Process, error) {
	response, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at its process: %w", err)
	}
	return response.Process, nil
}

// runs reports whether a container has a running task. A shim that does not
// answer may have one.
func (r *Runtime) runs(ctx context.Context, id string) (bool, error) {
	p, err := r.process(ctx, id)
	if err != nil || p == nil {
		return false, err
	}
	switch p.Status {
	case task.Status_RUNNING, task.Status_PAUSED, task.Status_PAUSING:
		return true, nil
	case task.Status_UNKNOWN:
		return false, errors.New("its shim does not answer: try again, or remove it")
	}
	return false, nil
}

func (r *Runtime) kill(ctx context.Context, id string, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	_, err := r.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(sig), All: sig == syscall.SIGKILL})
	return errgrpc.ToNative(err)
}

// awaitEnd waits until the first process has ended.
func (r *Runtime) awaitEnd(ctx context.Context, id string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := r.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
	return errgrpc.ToNative(err)
}

// deleteTask deletes a task that has ended. It tries again for a while: a shim
// may be about to notice the end, or containerd that the shim is dead.
func (r *Runtime) deleteTask(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	for {
		_, err := r.client.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
		if err = errgrpc.ToNative(err); err == nil || errdefs.IsNotFound(err) {
			return nil
		}
		if p, _ := r.process(ctx, id); p != nil && p.Status == task.Status_RUNNING {
			_ = r.kill(ctx, id, syscall.SIGKILL)
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return fmt.Errorf("delete its process: %w", err)
		}
	}
}
