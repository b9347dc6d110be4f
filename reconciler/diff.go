package reconciler

import (
	"maps"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// Diff is what must be done now for observed to become desired: all removals
// first, each module before those that it depends on; then the rest, each module
// after those that it depends on.
//
//   - A container that desired does not ask for is removed: foreign, undeclared,
//     declared stopped, made from another definition, changed behind our back, or
//     one too many. Where the module's update strategy is start-then-stop, the one
//     that ran longest, longer than its successor, waits until that is healthy, or
//     has run for the gate where it has no probes.
//   - A module without a container is started.
//   - One whose container has no process, as after a boot, is restarted. (That it
//     had ended before, and rests, is remembered: see finished.)
//   - One that exited is restarted as its policy says, when its back-off has
//     passed since the exit.
//   - One that somebody paused goes on.
//   - One that is unhealthy is stopped if its policy is to restart it; that is an
//     exit like any other.
//   - Any other that runs is left alone: no action at all.
//   - A module whose dependencies are not up waits. That orders starts; a module
//     that runs is not ended because a dependency ended, is unhealthy, or was
//     replaced.
//
// known are definitions that containers may have been made from: they tell what
// a module that is removed depends on.
//
// Exit and start times are compared with now, so all three must be readings of
// one clock. The reconciler gives the times at which it saw a container start
// and exit on its own monotonic clock: a jump of the device's wall clock neither
// hurries nor delays a restart.
func Diff(desired schema.Desired, observed schema.Observed, now time.Time, known ...schema.Desired) Plan {
	var all catalogs
	catalogs := []*catalog{all.of(desired)}
	for _, d := range known {
		catalogs = append(catalogs, all.of(d))
	}
	return diff{desired: desired, now: now}.run(catalogs, observed)
}

// run is Diff; catalogs are those of desired and then of what else is known.
func (d diff) run(catalogs []*catalog, observed schema.Observed) Plan {
	d.kept, d.reasons, d.comes = claim(catalogs[0], observed), map[string]string{}, map[string]bool{}
	d.remove(observed, catalogs)
	for _, m := range catalogs[0].order {
		d.converge(m.Name)
	}
	return d.plan
}

// diff is one run of Diff.
type diff struct {
	desired schema.Desired
	now     time.Time
	spared  time.Time          // until when a container waits for a successor that is not healthy; zero: without end
	kept    map[string]claimed // by module: what it shall run as
	reasons map[string]string  // by module: why its other container goes
	comes   map[string]bool    // modules that the plan so far starts
	plan    Plan
}

// converge plans what brings a module up, if it is not.
func (d *diff) converge(name string) {
	k, wanted := d.kept[name]
	if !wanted {
		return
	}
	a := d.bringUp(k)
	if a.Verb == Start || a.Verb == Restart && k.container.State != schema.StatePaused {
		if reason, until := d.obstacle(k.Module); reason != "" {
			a = a.wait(reason, until)
		}
	}
	if a.Verb != "" {
		d.plan = append(d.plan, a)
		d.comes[name] = a.Verb == Start || a.Verb == Restart
	}
}

// bringUp is the action for k itself, its dependencies aside; the zero Action
// when there is nothing to do.
func (d *diff) bringUp(k claimed) Action {
	c := k.container
	a := Action{Module: k.Name, Container: c.ID}
	switch {
	case c.ID == "":
		a.Verb, a.Reason = Start, "has no container"
		if reason := d.reasons[k.Name]; reason != "" {
			a.Reason = reason
		}
	case c.State == schema.StatePaused:
		a.Verb, a.Reason, a.Restarts = Restart, "is paused", c.Restarts
	case c.State == schema.StateCreated && c.ExitedAt.IsZero():
		a.Verb, a.Reason, a.Restarts = Restart, "has no process", c.Restarts
	case c.State == schema.StateCreated, c.State == schema.StateExited && restarts(k.Module, c):
		return d.again(a, k.Restart, c)
	case k.beyondHope():
		a.Verb, a.Reason = Stop, "unhealthy: "+c.HealthReason
	default: // it runs, or it ended and its policy lets it rest
		return Action{}
	}
	return a
}

// again is a restart of c, which ended, after its back-off. An exit whose time
// is zero was before the revision was taken over, and is not held against it.
func (d *diff) again(a Action, policy schema.Restart, c schema.Container) Action {
	n := c.Restarts
	if stable(c) {
		n = 0
	}
	a.Verb, a.Reason, a.Restarts = Restart, ending(c), n+1
	if due := c.ExitedAt.Add(Backoff(policy, n)); !c.ExitedAt.IsZero() && d.now.Before(due) {
		a = a.wait(ending(c)+", restarts after its back-off", due)
	}
	return a
}

// obstacle says which dependency m has to wait for, and until when if that is
// known; no reason when all are up or come up before m in this plan.
func (d *diff) obstacle(m schema.Module) (reason string, until time.Time) {
	if len(m.DependsOn) == 0 {
		return "", until
	}
	for _, name := range slices.Sorted(maps.Keys(m.DependsOn)) {
		healthy := m.DependsOn[name].Condition == schema.ConditionHealthy
		if reason, until := d.waitsFor(name, healthy); reason != "" {
			return reason, until
		}
	}
	return "", until
}

func (d *diff) waitsFor(name string, healthy bool) (reason string, until time.Time) {
	k, wanted := d.kept[name]
	c := k.container
	switch {
	case !wanted:
		if _, declared := d.desired.Module(name); declared {
			return "waits for " + name + ", which is declared stopped", until
		}
		return "waits for " + name + ", which is not declared", until
	case k.running() && !healthy:
		return "", until
	case k.running():
		if sound, soundAt := d.sound(k); !sound {
			return "waits for " + name + " to be healthy", soundAt
		}
		return "", until
	case k.done():
		return "", until
	case c.State == schema.StateExited && !restarts(k.Module, c):
		return "waits for " + name + ", which " + ending(c), until
	case healthy:
		return "waits for " + name + " to be healthy", until
	case d.comes[name]:
		return "", until
	default:
		return "waits for " + name, until
	}
}

// sound reports whether others may rely on k: it runs, healthy by all of its
// probes. Without probes, running for a gate is all that can be asked for; at is
// when that will be, where time alone is missing.
func (d *diff) sound(k claimed) (sound bool, at time.Time) {
	if !k.healthy() || !k.Health.IsZero() {
		return k.healthy(), at
	}
	if at = k.container.StartedAt.Add(time.Duration(d.desired.Gate)); d.now.Before(at) {
		return false, at
	}
	return true, time.Time{}
}
