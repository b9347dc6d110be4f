package containerd

import (
	"context"
	"fmt"
	"time"
)

// Pauses before listening to a daemon again that went away.
const (
	minWatchPause = 100 * time.Millisecond
	maxWatchPause = 5 * time.Second
)

// Watch calls kick whenever something happens to a container or a process of
// our namespace, and after each gap in which something could have happened
// unheard. It listens again for ever, with growing pauses, and returns when ctx
// ends. kick must not block; it says that something changed, and Observe says
// what.
func (r *Runtime) Watch(ctx context.Context, kick func()) {
	pause := minWatchPause
	for ctx.Err() == nil {
		if r.listen(ctx, kick) {
			pause = minWatchPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, maxWatchPause)
		kick()
	}
}

// listen calls kick for each event until the daemon goes away, and reports
// whether it was there.
func (r *Runtime) listen(ctx context.Context, kick func()) (heard bool) {
	ctx, cancel := context.WithCancel(ctx) // ends the subscription
	defer cancel()
	inNamespace := fmt.Sprintf("namespace==%q", r.config.Namespace)
	events, errs := r.client.EventService().Subscribe(ctx,
		inNamespace+`,topic~="^/tasks/(start|exit|oom|delete|paused|resumed)$"`,
		inNamespace+`,topic~="^/containers/(create|delete)$"`)
	for {
		select {
		case <-events:
			heard = true
			kick()
		case <-errs:
			return heard
		}
	}
}
