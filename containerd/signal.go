package containerd

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
)

// Signal sends a signal ("SIGHUP") to the first process of every container of a
// module that runs: two may, while one replaces the other. A frozen process gets
// it when it goes on. Where none runs nothing is done, and one that ends at this
// moment needs no signal.
func (r *Runtime) Signal(ctx context.Context, module, signal string) error {
	if err := r.signalAll(ctx, module, signal); err != nil {
		return fmt.Errorf("signal %s: %w", module, err)
	}
	return nil
}

func (r *Runtime) signalAll(ctx context.Context, module, signal string) error {
	sig, err := parseSignal(signal)
	if err != nil {
		return err
	}
	containers, err := r.list(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers {
		if !c.ours || c.record.module != module {
			continue
		}
		p, err := r.process(ctx, c.container.ID)
		if err != nil {
			return err
		}
		switch p.GetStatus() {
		case task.Status_RUNNING, task.Status_PAUSED, task.Status_PAUSING:
			if err := r.kill(ctx, c.container.ID, sig); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("send %s: %w", signal, err)
			}
		}
	}
	return nil
}
