package reconciler

import (
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// parallel is how many modules start at a time: a start is mostly the work of
// the runtime's shims, and a small device has memory for few at once.
const parallel = 4

// removalPatience is how long starts wait for the removal of other modules,
// which may hold what they need: a port, memory. A module may have an hour to
// stop; the others are not down as long.
const removalPatience = 15 * time.Second

// ground is what a plan meets when it is to be acted on. Diff knows what is
// missing; the ground knows what cannot be done about it yet.
type ground struct {
	now      time.Time
	target   schema.Desired
	busy     map[string]deed // under way, or to begin now, by Action.subject
	failures failures
	shelf    shelf
	declared bool

	removed time.Time // when removals are waited for no longer; zero when there are none
	starts  int       // under way, or to begin now
}

// hold puts off those actions of the plan that cannot be done now. An action is
// put off
//
//   - while another one for the same subject is under way, or comes before it;
//   - when it failed, until its back-off has passed;
//   - when it needs an image that is not verified, or not on the disk: nothing
//     starts unverified, and nothing stops before its replacement can start;
//   - a start, while another container of the module is there, for a while if
//     other modules are being removed, and before the twins of the target are
//     declared;
//   - while a module that it depends on is coming up;
//   - while enough others start.
//
// A container that could not be restarted is removed in place of being
// restarted, to be made anew.
func (g *ground) hold(plan Plan) Plan {
	for subject, deed := range g.busy {
		g.count(subject, deed)
	}
	held := make(Plan, 0, len(plan))
	for _, a := range plan {
		if a.Verb != Wait {
			if a = g.admit(a, plan); a.Verb != Wait {
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
	switch {
	case d.verb == Start || d.verb == Restart:
		g.starts++
	case !isContainer(subject) && g.now.Before(d.since.Add(removalPatience)):
		g.removed = earlier(g.removed, d.since.Add(removalPatience))
	}
}

// admit is the action as it can be done now: itself, a removal in place of a
// restart, or a wait.
func (g *ground) admit(a Action, plan Plan) Action {
	if _, busy := g.busy[a.subject()]; busy {
		return a.wait("another action is under way", time.Time{})
	}
	failure := g.failures[a.subject()]
	if failure.holds(a) && g.now.Before(failure.Retry) {
		return a.wait(fmt.Sprintf("%s failed: %v", failure.Verb, failure.Err), failure.Retry)
	}
	if a.Verb == Restart && failure.Verb == Restart {
		a.Verb, a.Restarts, a.Reason = Remove, 0, fmt.Sprintf("cannot be restarted: %v", failure.Err)
	}
	if reason, until := g.lacks(a, plan); reason != "" {
		return a.wait(reason, until)
	}
	return a
}

// lacks says what a has to wait for, and until when if that is known; nothing
// when it can be done.
func (g *ground) lacks(a Action, plan Plan) (reason string, until time.Time) {
	module, declared := g.target.Module(a.Module)
	if !declared {
		return "", until
	}
	_, replaces := plan.find(Start, a.Module)
	_, restarts := plan.find(Restart, a.Module)
	if a.Verb == Remove && !replaces && !restarts {
		return "", until
	}
	if reason := g.shelf.lacks(module.Image, a.Verb == Restart); reason != "" {
		return reason, until
	}
	if !g.declared && a.Verb != Restart {
		return "waits for the twins to be declared", until
	}
	if a.Verb == Remove {
		return "", until
	}
	return g.inTurn(a, module, plan)
}

// inTurn keeps the order of starts.
func (g *ground) inTurn(a Action, module schema.Module, plan Plan) (reason string, until time.Time) {
	if _, removed := plan.find(Remove, a.Module); removed {
		return "starts after the removal of its other container", until
	}
	if a.Verb == Start && !g.removed.IsZero() {
		return "starts after the removals", g.removed
	}
	for _, other := range plan {
		_, needed := module.DependsOn[other.Module]
		if needed && (other.Verb == Start || other.Verb == Restart) {
			return "waits for " + other.Module, until
		}
	}
	for name := range module.DependsOn {
		if d := g.busy[name]; d.verb == Start || d.verb == Restart {
			return "waits for " + name, until
		}
	}
	if g.starts >= parallel {
		return "waits while others start", until
	}
	return "", until
}

// holds reports whether the failure is a reason to put a off: a removal that
// failed does not delay a start, nor the other way round.
func (f Failure) holds(a Action) bool {
	return f.Count > 0 && (f.Verb == Remove) == (a.Verb == Remove)
}
