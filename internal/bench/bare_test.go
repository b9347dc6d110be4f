//go:build bench

package bench

import (
	"context"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
)

// bare is a client of containerd that does no more than containerd asks for,
// to the containers that an agent made, with their own specifications: what it
// takes is containerd's and runc's own.
type bare struct {
	*client.Client
	r   *rig
	ctx context.Context
}

// bareClient connects to the namespace that the agent works in.
func (r *rig) bareClient() bare {
	raw, err := client.New(r.daemon.Address, client.WithDefaultNamespace("bench"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { raw.Close() })
	return bare{raw, r, namespaces.WithNamespace(context.Background(), "bench")}
}

// halt stops the agent as it is, until the function that it returns is called.
func (r *rig) halt() (resume func()) {
	syscall.Kill(r.agent.PID(), syscall.SIGSTOP)
	return func() { syscall.Kill(r.agent.PID(), syscall.SIGCONT) }
}

// record is what containerd knows of a module's container.
func (b bare) record(module string) containers.Container {
	found, err := b.ContainerService().List(b.ctx, `labels."tidemark.io/module"==`+module)
	if err != nil || len(found) != 1 {
		b.r.t.Fatalf("module %s has %d containers, %v", module, len(found), err)
	}
	return found[0]
}

// replace ends a container, deletes it, makes it anew and starts it. The record
// of the container is there before its snapshot, and goes before it, since
// containerd deletes snapshots that nobody has.
func (b bare) replace(record containers.Container) error {
	snapshots := b.SnapshotService(record.Snapshotter)
	info, err := snapshots.Stat(b.ctx, record.SnapshotKey)
	if err != nil {
		return err
	}
	if _, err := b.TaskService().Kill(b.ctx, &tasks.KillRequest{ContainerID: record.ID, Signal: uint32(syscall.SIGTERM)}); err != nil {
		return err
	}
	if _, err := b.TaskService().Wait(b.ctx, &tasks.WaitRequest{ContainerID: record.ID}); err != nil {
		return err
	}
	if _, err := b.TaskService().Delete(b.ctx, &tasks.DeleteTaskRequest{ContainerID: record.ID}); err != nil {
		return err
	}
	if err := b.ContainerService().Delete(b.ctx, record.ID); err != nil {
		return err
	}
	if err := snapshots.Remove(b.ctx, record.SnapshotKey); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if _, err := b.ContainerService().Create(b.ctx, record); err != nil {
		return err
	}
	rootfs, err := snapshots.Prepare(b.ctx, record.SnapshotKey, info.Parent)
	if err != nil {
		return err
	}
	return b.launch(record, rootfs)
}

// restart runs a container again whose process has ended.
func (b bare) restart(record containers.Container) error {
	if _, err := b.TaskService().Delete(b.ctx, &tasks.DeleteTaskRequest{ContainerID: record.ID}); err != nil {
		return err
	}
	rootfs, err := b.SnapshotService(record.Snapshotter).Mounts(b.ctx, record.SnapshotKey)
	if err != nil {
		return err
	}
	return b.launch(record, rootfs)
}

// launch makes the container's process and starts it.
func (b bare) launch(record containers.Container, rootfs []mount.Mount) error {
	log := "file://" + filepath.Join(b.r.path("state"), "logs", record.Labels["tidemark.io/module"]+".log")
	request := &tasks.CreateTaskRequest{ContainerID: record.ID, Stdout: log, Stderr: log}
	for _, m := range rootfs {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Options: m.Options})
	}
	if _, err := b.TaskService().Create(b.ctx, request); err != nil {
		return err
	}
	_, err := b.TaskService().Start(b.ctx, &tasks.StartRequest{ContainerID: record.ID})
	return err
}

// pid is of the container's first process.
func (b bare) pid(record containers.Container) (int, error) {
	response, err := b.TaskService().Get(b.ctx, &tasks.GetRequest{ContainerID: record.ID})
	return int(response.GetProcess().GetPid()), err
}
