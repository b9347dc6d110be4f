package reconciler

import (
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// parallel is how many modules start at a time: a start is mostly the work of
// the runtime's shims, and a small device has memory for few at once.
const parallel = 4

// ground is what a plan meets when it is to be acted on. Diff knows what is
// missing; the ground knows what cannot be done about it yet.
type ground struct {
	now      time.Time
	target   schema.Desired
	busy     map[string]string // verb of the action under way, or to begin now, by Action.subject
	failures failures
	shelf    shelf
	declared bool

	removals int // of modules, under way or to begin now
	starts   int // likewise
}

// hold puts off those actions of the plan that cannot be done now. An action is
// put off
//
//   - while another one for the same subject is under way, or comes before it;
//   - when it failed, until its back-off has passed;
//   - when it needs an image that is not verified, or not on the disk: nothing
//     starts unverified, and nothing stops before its replacement can start;
//   - a start, while another container of the module is there, while any module
//     is being removed, and before the twins of the target are declared;
//   - while a module that it depends on is coming up;
//   - while enough others start.
//
// A container that could not be restarted is removed in place of being
// restarted, to be made anew.
func (g *ground) hold(plan Plan) Plan {
	for subject, verb := range g.busy {
		g.count(subject, verb)
	}
	held := make(Plan, 0, len(plan))
	for _, a := range plan {
		if a.Verb != Wait {
			if a = g.admit(a, plan); a.Verb != Wait {
				g.busy[a.subject()] = a.Verb
				g.count(a.subject(), a.Verb)
			}
		}
		held = append(held, a)
	}
	return held
}

// count takes an action into account that is under way or about to begin. No
// start waits for the removal of a foreign container.
func (g *ground) count(subject, verb string) {
	switch {
	case verb == Remove && !isContainer(subject):
		g.removals++
	case verb == Start || verb == Restart:
		g.starts++
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
	if reason := g.lacks(a, plan); reason != "" {
		return a.wait(reason, time.Time{})
	}
	return a
}

// lacks says what a has to wait for; nothing when it can be done.
func (g *ground) lacks(a Action, plan Plan) string {
	module, declared := g.target.Module(a.Module)
	if !declared {
		return ""
	}
	_, replaces := plan.find(Start, a.Module)
	_, restarts := plan.find(Restart, a.Module)
	if a.Verb == Remove && !replaces && !restarts {
		return ""
	}
	if reason := g.shelf.lacks(module.Image, a.Verb == Restart); reason != "" {
		return reason
	}
	if !g.declared && a.Verb != Restart {
		return "waits for the twins to be declared"
	}
	if a.Verb == Remove {
		return ""
	}
	return g.inTurn(a, module, plan)
}

// inTurn keeps the order of starts.
func (g *ground) inTurn(a Action, module schema.Module, plan Plan) string {
	if _, removed := plan.find(Remove, a.Module); removed {
		return "starts after the removal of its other container"
	}
	if a.Verb == Start && g.removals > 0 {
		return "starts after the removals"
	}
	for _, other := range plan {
		_, needed := module.DependsOn[other.Module]
		if needed && (other.Verb == Start || other.Verb == Restart) {
			return "waits for " + other.Module
		}
	}
	for name := range module.DependsOn {
		if verb := g.busy[name]; verb == Start || verb == Restart {
			return "waits for " + name
		}
	}
	if g.starts >= parallel {
		return "waits while others start"
	}
	return ""
}

// holds reports whether the failure is a reason to put a off: a removal that
// failed does not delay a start, nor the other way round.
func (f Failure) holds(a Action) bool {
	return f.Count > 0 && (f.Verb == Remove) == (a.Verb == Remove)
}
