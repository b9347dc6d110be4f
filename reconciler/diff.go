package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// Diff is what must be done now for observed to become desired: all removals
// first, then the starts and restarts, each module after those it depends on.
//
//   - A container that desired does not ask for is removed: foreign, undeclared,
//     declared stopped, made from another definition, or one too many.
//   - A module without a container is started.
//   - One whose container has no process, as after a boot, is restarted.
//   - One that exited is restarted as its policy says, when its back-off has
//     passed since the exit.
//   - One that runs is left alone: no action at all.
//   - A module whose dependencies are not up waits. That orders starts; a module
//     that runs is not ended because a dependency ended.
//
// Exit and start times are compared with now, so all three must be readings of
// one clock. The reconciler gives the times at which it saw a container start
// and exit on its own monotonic clock: a jump of the device's wall clock neither
// hurries nor delays a restart.
func Diff(desired schema.Desired, observed schema.Observed, now time.Time) Plan {
	d := diff{desired: desired, now: now, kept: claim(desired, observed)}
	for _, c := range observed.Containers {
		d.remove(c)
	}
	for _, m := range inOrder(desired.Modules) {
		d.converge(m)
	}
	return d.plan
}

// diff is one run of Diff.
type diff struct {
	desired schema.Desired
	now     time.Time
	kept    map[string]claimed // by module: what it shall run as
	plan    Plan
}

// claimed is a module that shall run, with the container that is as declared;
// the container's ID is empty where there is none.
type claimed struct {
	hash      string
	container schema.Container
}

// claim gives each module that shall run its one container: of those with the
// right hash the one that runs, else the one that exited, else any.
func claim(desired schema.Desired, observed schema.Observed) map[string]claimed {
	kept := make(map[string]claimed, len(desired.Modules))
	for _, m := range desired.Modules {
		if m.Status != schema.StatusStopped {
			kept[m.Name] = claimed{hash: m.Hash()}
		}
	}
	for _, c := range observed.Containers {
		k, ok := kept[c.Module]
		if ok && c.Hash == k.hash && (k.container.ID == "" || liveliness(c) > liveliness(k.container)) {
			kept[c.Module] = claimed{k.hash, c}
		}
	}
	return kept
}

func liveliness(c schema.Container) int {
	return slices.Index([]string{schema.StateCreated, schema.StateExited, schema.StateRunning}, c.State)
}

// remove plans the removal of c unless a module runs as it.
func (d *diff) remove(c schema.Container) {
	k := d.kept[c.Module]
	if c.ID == k.container.ID {
		return
	}
	m, declared := d.desired.Module(c.Module)
	var reason string
	switch {
	case c.Module == "":
		reason = "drift: no revision made it"
	case !declared:
		reason = "undeclared: not in revision " + d.desired.Revision.Short()
	case m.Status == schema.StatusStopped:
		reason = "declared stopped"
	case c.Hash == k.hash:
		reason = "drift: a second container of the module"
	case c.Image != m.Image:
		reason = "replaced: image changed"
	default:
		reason = "replaced: definition changed"
	}
	d.plan = append(d.plan, Action{Verb: Remove, Module: c.Module, Container: c.ID, Reason: reason})
}

// converge plans what brings m up, if it is not.
func (d *diff) converge(m schema.Module) {
	k, wanted := d.kept[m.Name]
	if !wanted || k.container.State == schema.StateRunning {
		return
	}
	a := d.bringUp(m, k.container)
	if a.Verb == Start || a.Verb == Restart {
		if reason, until := d.obstacle(m); reason != "" {
			a = a.wait(reason, until)
		}
	}
	if a.Verb != "" {
		d.plan = append(d.plan, a)
	}
}

// bringUp is the action for m itself, its dependencies aside; the zero Action
// when there is nothing to do.
func (d *diff) bringUp(m schema.Module, c schema.Container) Action {
	a := Action{Module: m.Name, Container: c.ID}
	switch {
	case c.ID == "":
		a.Verb, a.Reason = Start, "has no container"
		if old, ok := d.plan.find(Remove, m.Name); ok {
			a.Reason = old.Reason
		}
	case c.State == schema.StateCreated:
		a.Verb, a.Reason, a.Restarts = Restart, "has no process", c.Restarts
	case c.State == schema.StateExited && restarts(m, c):
		n := c.Restarts
		if stable(c) {
			n = 0
		}
		a.Verb, a.Reason, a.Restarts = Restart, ending(c), n+1
		if due := c.ExitedAt.Add(Backoff(m.Restart, n)); d.now.Before(due) {
			a = a.wait(ending(c)+", restarts after its back-off", due)
		}
	default: // it ended and its policy lets it rest, or the runtime holds it
		return Action{}
	}
	return a
}

// obstacle says which dependency m has to wait for, and until when if that is
// known; no reason when all are up or come up before m in this plan.
func (d *diff) obstacle(m schema.Module) (reason string, until time.Time) {
	for _, name := range slices.Sorted(maps.Keys(m.DependsOn)) {
		healthy := m.DependsOn[name].Condition == schema.ConditionHealthy
		if reason, until := d.waitsFor(name, healthy); reason != "" {
			return reason, until
		}
	}
	return "", time.Time{}
}

func (d *diff) waitsFor(name string, healthy bool) (reason string, until time.Time) {
	dependency, declared := d.desired.Module(name)
	k, wanted := d.kept[name]
	c := k.container
	switch {
	case !declared:
		return "waits for " + name + ", which is not declared", until
	case !wanted:
		return "waits for " + name + ", which is declared stopped", until
	case c.State == schema.StateRunning:
		if soundAt := c.StartedAt.Add(time.Duration(d.desired.Gate)); healthy && d.now.Before(soundAt) {
			return "waits for " + name + " to be healthy", soundAt
		}
		return "", until
	case c.State == schema.StateExited && !restarts(dependency, c):
		if c.ExitCode != 0 {
			return "waits for " + name + ", which " + ending(c), until
		}
		return "", until // a job that is done
	case healthy:
		return "waits for " + name + " to be healthy", until
	case d.comesUp(name):
		return "", until
	default:
		return "waits for " + name, until
	}
}

// comesUp reports whether the plan so far starts the module.
func (d *diff) comesUp(module string) bool {
	_, start := d.plan.find(Start, module)
	_, restart := d.plan.find(Restart, module)
	return start || restart
}

// inOrder sorts modules so that each comes after those it depends on, and by
// name among equals. In a dependency cycle, which can never come up, any order
// does.
func inOrder(modules []schema.Module) []schema.Module {
	if !slices.ContainsFunc(modules, func(m schema.Module) bool { return len(m.DependsOn) > 0 }) {
		return modules
	}
	byName := make(map[string]schema.Module, len(modules))
	for _, m := range modules {
		byName[m.Name] = m
	}
	var order []schema.Module
	var visit func(schema.Module)
	visit = func(m schema.Module) {
		if _, unseen := byName[m.Name]; !unseen {
			return
		}
		delete(byName, m.Name)
		for _, name := range slices.Sorted(maps.Keys(m.DependsOn)) {
			if dependency, unseen := byName[name]; unseen {
				visit(dependency)
			}
		}
		order = append(order, m)
	}
	for _, m := range modules {
		visit(m)
	}
	return order
}

// restarts reports whether m is to run again after c ended as it did.
func restarts(m schema.Module, c schema.Container) bool {
	switch m.Restart.Policy {
	case schema.RestartNever:
		return false
	case schema.RestartOnFailure, schema.RestartOnUnhealthy:
		return c.ExitCode != 0 || c.OOMKilled
	default:
		return true
	}
}

// stable reports whether c ran long enough for its restarts to be forgotten.
func stable(c schema.Container) bool {
	return !c.StartedAt.IsZero() && c.ExitedAt.Sub(c.StartedAt) >= StableAfter
}

// ending says how c ended: "exited with code 3".
func ending(c schema.Container) string {
	switch {
	case c.OOMKilled:
		return "was killed for its memory limit"
	case c.ExitCode > 128 && c.ExitCode <= 128+64:
		return fmt.Sprintf("was ended by signal %d", c.ExitCode-128)
	default:
		return fmt.Sprintf("exited with code %d", c.ExitCode)
	}
}
