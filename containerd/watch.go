package containerd

import (
	"context"
	"fmt"
	"time"
)

// watchPause is between two attempts to listen to a daemon that goes away as
// soon as it is there; one that is not there is waited for.
const watchPause = time.Second

// Watch calls kick whenever something happens to a container or a process of
// our namespace, and whenever it begins to listen: what happened before was not
// heard. It listens again for ever and returns when ctx ends. kick must not
// block; it says that something changed, and Observe says what.
func (r *Runtime) Watch(ctx context.Context, kick func()) {
	for ctx.Err() == nil {
		if serving, err := r.client.IsServing(ctx); err == nil && serving {
			r.listen(ctx, kick)
		}
		select {
		case <-time.After(watchPause):
		case <-ctx.Done():
		}
	}
}

// listen calls kick for each event until the daemon goes away.
func (r *Runtime) listen(ctx context.Context, kick func()) {
	ctx, cancel := context.WithCancel(ctx) // ends the subscription
	defer cancel()
	inNamespace := fmt.Sprintf("namespace==%q", r.config.Namespace)
	events, errs := r.client.EventService().Subscribe(ctx,
		inNamespace+`,topic~="^/tasks/(start|exit|oom|delete|paused|resumed)$"`,
		inNamespace+`,topic~="^/containers/(create|delete)$"`)
	// The daemon answers this after it has seen the subscription.
	if _, err := r.client.Version(ctx); err != nil {
		return
	}
	kick()
	for {
		select {
		case <-events:
			kick()
		case <-errs:
			return
		}
	}
}
