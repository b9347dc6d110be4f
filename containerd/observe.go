package containerd

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/tidemark-edge/tidemark/containerd/cgroup"
	"github.com/tidemark-edge/tidemark/schema"
)

// observeTimeout bounds one look: containerd itself waits 2 s for each shim
// that does not answer.
const observeTimeout = 2 * time.Minute

// Observe lists every container of the namespace: two calls to the daemon,
// however many there are. A container that was not made by a Runtime is listed
// without a module. A task whose shim does not answer counts as running.
func (r *Runtime) Observe(ctx context.Context) (schema.Observed, error) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	looked := time.Now()
	records, err := r.list(ctx)
	if err != nil {
		return schema.Observed{}, fmt.Errorf("observe: list containers of containerd at %s: %w", r.config.Address, err)
	}
	response, err := r.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return schema.Observed{}, fmt.Errorf("observe: list tasks of containerd at %s: %w", r.config.Address, errgrpc.ToNative(err))
	}
	processes := make(map[string]*task.Process, len(response.Tasks))
	for _, p := range response.Tasks {
		processes[p.ID] = p
	}
	r.remind(records)
	var observed schema.Observed
	var modules []string // that have containers
	for _, c := range records {
		seen := r.container(c.container.ID, c.record, processes[c.container.ID])
		delete(processes, c.container.ID)
		if c.ours {
			seen.Drift = c.drift
			modules = append(modules, c.record.module)
		}
		observed.Containers = append(observed.Containers, seen)
	}
	for id, p := range processes { // a task whose container record is gone
		observed.Containers = append(observed.Containers, r.container(id, record{}, p))
	}
	r.pruneLogs(modules)
	r.rescueLogs(observed.Containers)
	r.meet(ctx, looked, records, observed.Containers)
	return observed, nil
}

// container joins what the labels and what the task say; p is nil when there
// is no task.
func (r *Runtime) container(id string, rec record, p *task.Process) schema.Container {
	c := schema.Container{
		ID: id, Module: rec.module, Image: rec.image, Hash: rec.hash, Commit: rec.commit,
		Restarts: rec.restarts, StartedAt: rec.started, State: schema.StateCreated,
	}
	switch p.GetStatus() {
	case task.Status_STOPPED:
		c.State, c.Ended = schema.StateExited, rec.ended
		c.ExitCode = int(p.ExitStatus)
		if at := p.ExitedAt; at.IsValid() && at.AsTime().Year() > 1 {
			c.ExitedAt = at.AsTime()
		}
		const killed = 128 + 9
		c.OOMKilled = c.ExitCode == killed && cgroup.OOMKilled(cgroup.Path(r.config.Namespace, id))
	case task.Status_RUNNING, task.Status_PAUSING:
		c.State, c.PID = schema.StateRunning, int(p.Pid)
	case task.Status_PAUSED:
		c.State, c.PID = schema.StatePaused, int(p.Pid)
	case task.Status_UNKNOWN:
		if p != nil {
			c.State = schema.StateRunning
		}
	}
	return c
}
