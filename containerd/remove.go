package containerd

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tidemark-edge/tidemark/containerd/specification"
	"github.com/tidemark-edge/tidemark/internal/failpoint"
)

// foreignGrace is how long a container that is not ours has after SIGTERM.
const foreignGrace = 10 * time.Second

// Remove ends a container as its definition says, and deletes it with its root
// filesystem. It also removes containers that are not ours, and what is left
// of half-removed ones. Volumes and logs stay.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	unlock, err := r.busy.Lock(ctx, id)
	if err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	defer unlock()
	if err := r.remove(ctx, id); err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	return nil
}

// remove does so for who holds id.
func (r *Runtime) remove(ctx context.Context, id string) error {
	container, err := r.client.ContainerService().Get(ctx, id)
	if errdefs.IsNotFound(err) {
		container, err = r.claimTask(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("look for its container: %w", err)
	}
	sig, grace := howToStop(container)
	if err := r.endTask(ctx, id, sig, grace); err != nil {
		return err
	}
	if err := r.bury(ctx, id); err != nil {
		return err
	}
	failpoint.Reach("containerd.taskless")
	if err := r.client.ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete its container: %w", err)
	}
	failpoint.Reach("containerd.forgotten")
	if container.SnapshotKey == "" {
		return nil
	}
	err = r.client.SnapshotService(container.Snapshotter).Remove(ctx, container.SnapshotKey)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete its root filesystem: %w", err)
	}
	return nil
}

// howToStop reads a container's stop signal and timeout.
func howToStop(c containers.Container) (syscall.Signal, time.Duration) {
	if rec, ours := readRecord(c); ours {
		if sig, err := parseSignal(rec.stop.Signal); err == nil {
			return sig, time.Duration(rec.stop.Timeout)
		}
	}
	return syscall.SIGTERM, foreignGrace
}

// claimTask finds what is left of a container without a record. containerd
// lists a task without one, but obeys only who names the container; so a record
// is written for it.
func (r *Runtime) claimTask(ctx context.Context, id string) (containers.Container, error) {
	left := containers.Container{ID: id, SnapshotKey: id, Snapshotter: r.config.Snapshotter}
	response, err := r.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return left, errgrpc.ToNative(err)
	}
	for _, p := range response.Tasks {
		if p.ID != id {
			continue
		}
		claim := left
		claim.Runtime.Name = r.config.Runtime
		if claim.Spec, err = typeurl.MarshalAny(&specs.Spec{Version: specification.Version}); err != nil {
			return left, err
		}
		_, err = r.client.ContainerService().Create(ctx, claim)
		return left, err
	}
	return left, nil
}
