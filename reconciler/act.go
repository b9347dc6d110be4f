package reconciler

import (
	"context"
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// A runtime that hangs costs a try, not the module. A module may have an hour to
// stop.
const (
	startTimeout = 2 * time.Minute
	stopTimeout  = time.Hour + 15*time.Minute
)

// deed is an action under way.
type deed struct {
	verb  string
	since time.Time
}

// act begins every action of the plan that does not wait.
func (r *Reconciler) act(ctx context.Context, plan Plan) {
	target := r.state.Target
	for _, a := range plan {
		if a.Verb == Wait {
			continue
		}
		r.mu.Lock()
		r.busy[a.subject()] = deed{a.Verb, time.Now()}
		was := r.sights[a.Container]
		r.mu.Unlock()
		r.work.Go(func() { r.do(ctx, target, a, was) })
	}
}

// do does one action when its turn comes, takes down what came of it, and calls
// for the next pass. was is what was seen of its container before.
func (r *Reconciler) do(ctx context.Context, target schema.Desired, a Action, was sight) {
	end, err := r.turnsOf(a).take(ctx)
	if err != nil {
		return
	}
	defer end()
	if r.isPast(target) {
		r.forgo(a)
		return
	}
	began := time.Now()
	r.mu.Lock()
	r.gaps.begin(a, was, began)
	r.mu.Unlock()
	err = r.perform(ctx, target, a)
	now := time.Now()
	r.mu.Lock()
	delete(r.busy, a.subject())
	if target.Revision.Commit == r.state.Target.Revision.Commit && ctx.Err() == nil {
		r.failures.record(a, err, now)
	}
	if err == nil {
		r.mends.record(a, now)
		r.gaps.end(a, now)
	}
	idle := len(r.busy) == 0
	r.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	r.logAction(a, err, now.Sub(began))
	if err != nil && a.Verb == Start {
		module, _ := target.Module(a.Module)
		r.work.Go(func() { r.doubt(ctx, module.Image) })
	}
	if idle {
		r.lookNow() // nobody does anything before the next pass
		return
	}
	r.look.now()
}

// turnsOf are those that a has to take.
func (r *Reconciler) turnsOf(a Action) turns {
	switch a.Verb {
	case Remove, Stop:
		return r.ends
	case Restart:
		return r.restarts
	default:
		return r.starts
	}
}

// isPast reports whether target is not the target any more.
func (r *Reconciler) isPast(target schema.Desired) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return target.Revision.Commit != r.state.Target.Revision.Commit
}

// forgo leaves an action undone: another target came before its turn.
func (r *Reconciler) forgo(a Action) {
	r.mu.Lock()
	delete(r.busy, a.subject())
	r.mu.Unlock()
	r.look.now()
}

// perform is the action as the runtime's verb.
func (r *Reconciler) perform(ctx context.Context, target schema.Desired, a Action) error {
	timeout := startTimeout
	if a.Verb == Remove || a.Verb == Stop {
		timeout = stopTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch a.Verb {
	case Remove:
		return r.Runtime.Remove(ctx, a.Container)
	case Stop:
		return r.Runtime.Stop(ctx, a.Container, a.Reason)
	case Restart:
		return r.Runtime.Restart(ctx, a.Container, a.Restarts)
	}
	module, ok := target.Module(a.Module)
	if !ok {
		return fmt.Errorf("start %s: not in revision %s", a.Module, target.Revision.Short())
	}
	return r.Runtime.Start(ctx, module, target.Revision.Commit, r.proof(module.Image))
}

// logAction is the one line for an action. One that fails again for the same
// reason has none.
func (r *Reconciler) logAction(a Action, err error, took time.Duration) {
	topic := a.Verb + " " + a.subject()
	log := r.Log.With("module", a.Module, "container", a.Container, "reason", a.Reason, "took", took.Round(time.Millisecond))
	if err == nil {
		r.news.over(topic)
		log.Info(a.Verb)
	} else if r.news.is(topic, err.Error()) {
		log.Warn(a.Verb, "error", err)
	}
}
