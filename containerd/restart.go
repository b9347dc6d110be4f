package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
)

// Restart runs an exited container again, in the same root filesystem where a power
// cut has left it, and records restarts. One that runs is left alone; one whose processes are frozen
// goes on, uncounted; one that is not what was made is refused. It runs although
// the disk is too full to record it: see note.
func (r *Runtime) Restart(ctx context.Context, id string, restarts int) error {
	unlock, err := r.busy.Lock(ctx, id)
	if err != nil {
		return fmt.Errorf("restart %s: %w", id, err)
	}
	defer unlock()
	if err := r.restart(ctx, id, restarts); err != nil {
		return fmt.Errorf("restart %s: %w", id, err)
	}
	return nil
}

func (r *Runtime) restart(ctx context.Context, id string, restarts int) error {
	container, err := r.client.ContainerService().Get(ctx, id)
	if err != nil {
		return fmt.Errorf("look for its container: %w", err)
	}
	rec, ours := readRecord(container)
	if !ours {
		return errors.New("it was not made by this agent: remove it")
	}
	if drift := driftOf(container); drift != "" {
		return fmt.Errorf("%s: remove it", drift)
	}
	if resumed, err := r.resume(ctx, id); resumed || err != nil {
		return err
	}
	if running, err := r.runs(ctx, id); running || err != nil {
		return err
	}
	if err := r.endTask(ctx, id, syscall.SIGKILL, 0); err != nil {
		return err
	}
	rec.restarts, rec.started, rec.ended = restarts, time.Now(), ""
	all := rec.labels()
	noted := map[string]string{labelRestarts: all[labelRestarts], labelStarted: all[labelStarted], labelEnded: ""}
	if err := r.note(ctx, id, noted); err != nil {
		return fmt.Errorf("count it: %w", err)
	}
	failpoint.Reach("containerd.counted")
	if err := r.refresh(ctx, container, rec); err != nil {
		return err
	}
	mounts, err := r.Images.Mounts(ctx, id, rec.chain)
	if err != nil {
		return err
	}
	return r.launch(ctx, id, rec, mounts)
}

// resume lets a container's frozen processes go on; it reports whether there
// were any.
func (r *Runtime) resume(ctx context.Context, id string) (bool, error) {
	p, err := r.process(ctx, id)
	if err != nil || p.GetStatus() != task.Status_PAUSED {
		return false, err
	}
	if _, err := r.client.TaskService().Resume(ctx, &tasks.ResumeTaskRequest{ContainerID: id}); err != nil {
		return false, fmt.Errorf("resume it: %w", errgrpc.ToNative(err))
	}
	return true, nil
}

// refresh makes again what a container mounts and what may be gone since it
// was made: after a reboot there is no identity.
func (r *Runtime) refresh(ctx context.Context, container containers.Container, rec record) error {
	if _, _, err := r.identity(ctx, rec); err != nil {
		return err
	}
	var spec specs.Spec
	if err := json.Unmarshal(container.Spec.GetValue(), &spec); err != nil {
		return fmt.Errorf("read its specification: %w", err)
	}
	return r.host().Renew(rec.module, rec.network, spec.Mounts)
}
