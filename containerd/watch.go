package containerd

import (
	"context"
	"fmt"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
)

// watchPause is between two attempts to listen to a daemon that goes away as
// soon as it is there; one that is not there is waited for.
const watchPause = time.Second

// Watch calls kick whenever something happens to a container or a process of
// our namespace that is not this Runtime's own doing, whenever it begins to
// listen, for what happened before was not heard, and when the daemon goes away.
// It listens again for ever and returns when ctx ends. kick must not block; it says that something changed,
// and Observe says what.
//
// Who calls Start, Restart, Stop or Remove is to look when it returns; what
// happens to that container meanwhile is not told. A module that is replaced
// would call for eight looks.
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
	happened, errs := r.client.EventService().Subscribe(ctx,
		inNamespace+`,topic~="^/tasks/(start|exit|oom|delete|paused|resumed)$"`,
		inNamespace+`,topic~="^/containers/(create|update|delete)$"`)
	// The daemon answers this after it has seen the subscription.
	if _, err := r.client.Version(ctx); err != nil {
		return
	}
	kick()
	for {
		select {
		case e := <-happened:
			if r.isNews(e) {
				kick()
			}
		case <-errs:
			kick() // a daemon that is gone shows in what Observe returns
			return
		}
	}
}

// isNews reports whether an event calls for a look. The end of a command that
// was run in a container, to probe it, does not.
func (r *Runtime) isNews(e *events.Envelope) bool {
	if e == nil {
		return true
	}
	v, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		return true
	}
	switch e := v.(type) {
	case *eventtypes.TaskExit:
		return e.ID == e.ContainerID && !r.busy.IsHeld(e.ContainerID)
	case *eventtypes.TaskStart:
		return !r.busy.IsHeld(e.ContainerID) && !r.hasMade(e.ContainerID, int(e.Pid))
	case interface{ GetContainerID() string }:
		return !r.busy.IsHeld(e.GetContainerID())
	case interface{ GetID() string }:
		return !r.busy.IsHeld(e.GetID())
	default:
		return true
	}
}
