package reconciler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// removalPatience is how long starts wait for the removal of other modules,
// which may hold what they need: a port, memory. A module may have an hour to
// stop; the others are not down as long.
const removalPatience = 15 * time.Second

// removalAttempts is how often the removal of a module fails before those that
// it depends on are removed although it is there.
const removalAttempts = 3

// ground is what a plan meets when it is to be acted on. Diff knows what is
// missing; the ground knows what cannot be done about it yet.
type ground struct {
	now      time.Time
	target   *catalog
	busy     map[string]deed // under way, or to begin now, by Action.subject
	failures failures
	shelf    shelf
	mends    mends
	declared bool

	verbs   map[string]verbs // of the plan that is held, by module
	removed time.Time        // when removals are waited for no longer; zero when there are none
}

// hold puts off those actions of the plan that cannot be done now. An action is
// put off
//
//   - while another one for the same subject is under way, or comes before it;
//   - when it failed, until its back-off has passed;
//   - when it mends a drift that was mended a moment ago, until a back-off has
//     passed: what changes a container behind our back may do so again;
//   - when it needs an image that is not verified, or not on the disk: nothing
//     starts unverified, and nothing stops before its replacement can start;
//   - a start, while another container of the module is there, for a while if
//     other modules are being removed, and before the twins of the target are
//     declared;
//   - while a module that it depends on is coming up;
//   - a removal, while a module that depends on it is there to be removed.
//
// A container that could not be restarted is removed in place of being
// restarted, to be made anew.
func (g *ground) hold(plan Plan) Plan {
	for subject, deed := range g.busy {
		g.count(subject, deed)
	}
	g.verbs = verbsOf(plan)
	held := make(Plan, 0, len(plan))
	for _, a := range plan {
		if a.Verb != Wait {
			if a = g.admit(a); a.Verb != Wait {
				g.busy[a.subject()] = deed{a.Verb, g.now}
				g.count(a.subject(), g.busy[a.subject()])
			}
		}
		held = append(held, a)
	}
	return held
}

// count takes an action into account that is under way or about to begin. No
// start waits for the removal of a foreign container.
func (g *ground) count(subject string, d deed) {
	if d.verb == Remove && !isContainer(subject) && g.now.Before(d.since.Add(removalPatience)) {
		g.removed = earlier(g.removed, d.since.Add(removalPatience))
	}
}

// admit is the action as it can be done now: itself, a removal in place of a
// restart, or a wait.
func (g *ground) admit(a Action) Action {
	if verb := g.underWay(a); verb != "" {
		return a.wait("is being "+passive[verb], time.Time{})
	}
	failure := g.failures[a.subject()]
	if failure.concerns(a) && g.now.Before(failure.Retry) {
		return a.wait(fmt.Sprintf("%s failed: %v", failure.Verb, failure.Err), failure.Retry)
	}
	if elder := g.verbs[a.Module].elder; a.Verb == Remove && !a.beside && elder != "" {
		if _, ends := g.busy[containerPrefix+elder]; ends {
			return a.wait("goes on while the one that ran longer ends", time.Time{})
		}
	}
	if due := g.mends.due(a); g.now.Before(due) {
		return a.wait("was mended a moment ago; "+a.Reason, due)
	}
	if a.Verb == Restart && failure.Verb == Restart {
		a.Verb, a.Restarts, a.Reason = Remove, 0, fmt.Sprintf("cannot be restarted: %v", failure.Err)
	}
	if reason, until := g.lacks(a); reason != "" {
		return a.wait(reason, until)
	}
	return a
}

// underWay is the verb of what is under way for what a is concerned with; none
// when nothing is.
func (g *ground) underWay(a Action) string {
	return cmp.Or(g.busy[a.subject()].verb, g.busy[containerPrefix+a.Container].verb)
}

// passive are the verbs as a module suffers them.
var passive = map[string]string{Remove: "removed", Start: "started", Restart: "restarted", Stop: "stopped"}

// lacks says what a has to wait for, and until when if that is known; nothing
// when it can be done.
func (g *ground) lacks(a Action) (reason string, until time.Time) {
	if a.Verb == Remove && a.After != "" && !g.stays(a.After) {
		return "goes after " + a.After, until
	}
	module, declared := g.target.byName[a.Module]
	if !declared || a.beside {
		return "", until
	}
	if is := g.verbs[a.Module]; a.Verb == Remove && !is.start && !is.restart {
		return "", until
	}
	if reason := g.shelf.lacks(module.Image, a.Verb == Restart || a.Verb == Stop); reason != "" {
		return reason, until
	}
	if !g.declared && a.Verb != Restart && a.Verb != Stop {
		return "waits for the twins to be declared", until
	}
	if a.Verb == Remove || a.Verb == Stop {
		return "", until
	}
	return g.inTurn(a, module)
}

// inTurn keeps the order of starts.
func (g *ground) inTurn(a Action, module *entry) (reason string, until time.Time) {
	if g.verbs[a.Module].remove {
		return "starts after the removal of its other container", until
	}
	if a.Verb == Start && !g.removed.IsZero() {
		return "starts after the removals", g.removed
	}
	for _, name := range slices.Sorted(maps.Keys(module.DependsOn)) {
		if is := g.verbs[name]; is.start || is.restart {
			return "waits for " + name, until
		}
		if d := g.busy[name]; d.verb == Start || d.verb == Restart {
			return "waits for " + name, until
		}
	}
	return "", until
}

// stays reports whether a module cannot be removed, as it seems: others do not
// wait for it then.
func (g *ground) stays(module string) bool { return g.failures[module].stays() }

// verbs are what a plan has for one module.
type verbs struct {
	remove, start, restart bool
	elder                  string // the container that goes on until its successor is healthy
}

func verbsOf(p Plan) map[string]verbs {
	all := make(map[string]verbs, len(p))
	for _, a := range p {
		v := all[a.Module]
		v.remove = v.remove || a.Verb == Remove
		v.start = v.start || a.Verb == Start
		v.restart = v.restart || a.Verb == Restart
		if a.Verb == Wait && a.beside {
			v.elder = a.Container
		}
		all[a.Module] = v
	}
	return all
}
