package reconciler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/schema"
)

// observeAgain is the wait after the runtime could not be asked.
const observeAgain = time.Second

// supervision passes whenever it is kicked, when something becomes due, and at
// every tick in any case. What happens outside is looked at at once; the end of
// an action may wait a little, where many end one after the other.
func (r *Reconciler) supervision(ctx context.Context) {
	var t tempo
	for ctx.Err() == nil {
		began := time.Now()
		due := r.pass(ctx)
		pause(ctx, t.rest(began, time.Now()), &r.urgent)
		pause(ctx, time.Until(due), &r.look)
	}
}

// lookNow asks for a pass that does not wait.
func (r *Reconciler) lookNow() {
	r.urgent.now()
	r.look.now()
}

// pass is supervision's part of the package comment, a statement for each line.
// It returns when the next pass is due.
func (r *Reconciler) pass(ctx context.Context) time.Time {
	if !r.takeOver() {
		return time.Now().Add(DefaultTick)
	}
	if time.Now().Before(r.calm) {
		return r.calm
	}
	view, err := r.view(ctx)
	if err != nil {
		return time.Now().Add(observeAgain)
	}
	r.judge(view)
	r.declare(ctx)
	plan := r.planFor(view)
	r.act(ctx, plan)
	return r.due(view)
}

// view is what one pass looks at.
type view struct {
	from, at time.Time       // when the observation began, and when it had ended: what it says is not newer than from
	observed schema.Observed // with what the probes say, and the times at which this agent saw things happen
	busy     map[string]deed // by Action.subject, from before the observation
}

// view observes. An action that is under way when the observation begins may
// have changed half of it, so the pass leaves its subject alone.
func (r *Reconciler) view(ctx context.Context) (view, error) {
	r.mu.Lock()
	busy := maps.Clone(r.busy)
	r.mu.Unlock()
	from := time.Now()
	observed, err := r.Runtime.Observe(ctx)
	if ctx.Err() != nil {
		return view{}, ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("observe containers: %w", err)
	}
	r.note(troubleRuntime, err)
	if err != nil {
		return view{}, err
	}
	now := time.Now()
	observed = r.recall(observed)
	r.examine(ctx, observed, now)
	if !slices.Equal(observed.Containers, r.observed.Containers) {
		r.change(func() { r.observed = observed })
	}
	seen := r.sights.see(observed, now)
	r.tails.take(seen, r.Output)
	if r.before == nil {
		r.before = restartsOf(seen)
	}
	return view{from, now, seen, busy}, nil
}

// startOver forgets what is held against modules, for another target. The caller
// holds r.mu.
func (r *Reconciler) startOver() {
	r.verdict, r.failures, r.mends = Verdict{}, failures{}, mends{}
	r.sights.forgive()
	r.before, r.since = nil, time.Now()
}

// restartsOf are the restarts of each container by its id.
func restartsOf(observed schema.Observed) map[string]int {
	restarts := make(map[string]int, len(observed.Containers))
	for _, c := range observed.Containers {
		restarts[c.ID] = c.Restarts
	}
	return restarts
}

// onTrial is what the view says of the target's trial: restarts of before count
// for nothing. With the agent ends what it knew of earlier ones, so a trial
// begins again with it. What ran when a slow observation began may not when it has
// ended, so a gate has passed only if it had at the beginning.
func (r *Reconciler) onTrial(v view) Verdict {
	observed := schema.Observed{Containers: slices.Clone(v.observed.Containers)}
	for i, c := range observed.Containers {
		if before := r.before[c.ID]; c.Restarts >= before {
			observed.Containers[i].Restarts -= before
		}
	}
	desired, lastGood := r.catalogs.of(r.state.Target), r.catalogs.of(r.state.LastGood)
	r.mu.Lock()
	defer r.mu.Unlock()
	trial := Trial{Desired: r.state.Target, LastGood: r.state.LastGood, Failures: r.failures, Since: r.since}
	return trial.judge(desired, lastGood, observed, v.from)
}

// declare tells the reporter what the target is, before anything of it starts.
func (r *Reconciler) declare(ctx context.Context) {
	if r.declared {
		return
	}
	failpoint.Reach("reconciler.declare")
	err := r.Reporter.Declare(ctx, r.state.Target)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		err = fmt.Errorf("declare the twins of revision %s: %w", r.state.Target.Revision.Short(), err)
	}
	r.note(troubleTwin, err)
	r.change(func() { r.declared = err == nil })
	if r.declared {
		r.look.now() // a target whose twins alone changed can be judged now
	}
}

// planFor is what can be done now about the difference between the target and
// what is there.
func (r *Reconciler) planFor(v view) Plan {
	target, known := r.state.Target, []schema.Desired{r.state.LastGood, r.previous}
	catalogs := []*catalog{r.catalogs.of(target)}
	for _, d := range known {
		catalogs = append(catalogs, r.catalogs.of(d))
	}
	// After the deadline no container is kept beside a successor, on trial or not.
	compare := diff{desired: target, now: v.at, spared: r.since.Add(deadlineOf(target))}
	difference := compare.run(catalogs, v.observed).explain(v.observed, catalogs)
	r.mu.Lock()
	ground := ground{
		now: v.at, target: catalogs[0], busy: v.busy,
		failures: r.failures, mends: r.mends, shelf: r.shelf, declared: r.declared,
	}
	plan := ground.hold(difference)
	settled := !difference.switches()
	if settled && !r.state.Trial {
		r.gaps.forget(catalogs[0])
	}
	r.mu.Unlock()
	if settled != r.settled || !slices.Equal(plan, r.plan) {
		r.change(func() { r.plan, r.settled = plan, settled })
		r.restock.now() // a settled device may be pruned
	}
	return plan
}

// due is when the pass after this one is due at the latest.
func (r *Reconciler) due(v view) time.Time {
	due := earlier(v.at.Add(DefaultTick), r.plan.due())
	if r.state.Trial {
		due = earlier(due, r.verdict.Until)
	}
	return due
}
