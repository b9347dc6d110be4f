package reconciler

import (
	"slices"

	"github.com/tidemark-edge/tidemark/schema"
)

// removal is the end of a container in a plan.
type removal struct {
	Action
	needs map[string]schema.Dependency // what it depends on, by module
}

// remove plans the removal of every container that no module runs as.
func (d *diff) remove(observed schema.Observed, catalogs []*catalog) {
	elders := d.elders(observed)
	var removals []removal
	var later Plan
	for _, c := range observed.Containers {
		k := d.kept[c.Module]
		if c.ID == k.container.ID {
			continue
		}
		a := Action{Verb: Remove, Module: c.Module, Container: c.ID, Reason: d.superfluous(c, catalogs[0])}
		if d.reasons[c.Module] == "" {
			d.reasons[c.Module] = a.Reason
		}
		if elders[c.Module].ID == c.ID {
			a.beside = true
			_, soundAt := d.sound(k)
			later = append(later, a.wait("is replaced once the new one is healthy", soundAt))
			continue
		}
		a.beside = k.running()
		r := removal{Action: a}
		if from := made(c.Module, c.Hash, catalogs); from != nil {
			r.needs = from.DependsOn
		}
		removals = append(removals, r)
	}
	d.plan = append(inReverse(removals), later...)
}

// superfluous is why c goes.
func (d *diff) superfluous(c schema.Container, desired *catalog) string {
	k, declared := desired.byName[c.Module]
	switch {
	case c.Module == "":
		return "drift: no revision made it"
	case !declared:
		return "undeclared: not in revision " + d.desired.Revision.Short()
	case k.Status == schema.StatusStopped:
		return "declared stopped"
	case c.Hash == k.hash && c.Drift != "":
		return "drift: " + c.Drift
	case c.Hash == k.hash:
		return "drift: a second container of the module"
	case c.Image != k.Image:
		return "replaced: image changed"
	default:
		return "replaced: definition changed"
	}
}

// elders are the containers that go on until what replaces them is healthy, by
// module. Of several it is the one that has run the longest: the others never
// proved anything. Nor did one that is younger than what replaces it: its
// revision failed, and it may be what keeps the other from being healthy.
func (d *diff) elders(observed schema.Observed) map[string]schema.Container {
	var elders map[string]schema.Container
	if !d.spared.IsZero() && !d.now.Before(d.spared) {
		return nil
	}
	for _, c := range observed.Containers {
		k, wanted := d.kept[c.Module]
		if !wanted || c.Hash == k.hash || k.Update.Strategy != schema.UpdateStartThenStop || c.State != schema.StateRunning {
			continue
		}
		if sound, _ := d.sound(k); sound || k.done() || k.running() && k.container.StartedAt.Before(c.StartedAt) {
			continue
		}
		if elder, ok := elders[c.Module]; !ok || c.StartedAt.Before(elder.StartedAt) {
			if elders == nil {
				elders = map[string]schema.Container{}
			}
			elders[c.Module] = c
		}
	}
	return elders
}

// inReverse puts removals in order: a module goes before those that it depends
// on. Each names the first of the modules that have to be gone before it.
func inReverse(removals []removal) Plan {
	plan := make(Plan, 0, len(removals))
	dependents := map[string][]int{}
	for i, r := range removals {
		for name := range r.needs {
			dependents[name] = append(dependents[name], i)
		}
	}
	const open, done = 1, 2
	state := make([]int, len(removals))
	var visit func(int)
	visit = func(i int) {
		state[i] = open
		a := removals[i].Action
		for _, j := range dependents[a.Module] {
			if state[j] == 0 {
				visit(j)
			}
			// In a cycle, which no definition that was accepted has, somebody is first.
			if other := removals[j]; state[j] == done && !other.beside && other.Module != a.Module && a.After == "" {
				a.After = other.Module
			}
		}
		state[i] = done
		plan = append(plan, a)
	}
	for i := range removals {
		if state[i] == 0 {
			visit(i)
		}
	}
	return slices.Clip(plan)
}
