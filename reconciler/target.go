package reconciler

import (
	"slices"

	"github.com/tidemark-edge/tidemark/schema"
)

// Only supervision writes the target, so it reads it without the lock.

// takeOver makes the revision that deployment has staged the target, once that
// is on the disk. It reports whether there is a target.
func (r *Reconciler) takeOver() bool {
	r.mu.Lock()
	next := r.next
	r.mu.Unlock()
	if r.unsaved {
		r.decide(r.state)
	}
	if next == nil {
		return r.state.accepted()
	}
	state := r.state.takeOver(*next)
	if err := state.save(r.StateDir); err != nil {
		r.note(troubleState, err) // rather go on with the old target than run what a power cut would forget
		return r.state.accepted()
	}
	r.Log.Info("take over", "revision", next.Revision.Short(), "subject", next.Revision.Subject, "signer", next.Revision.Signer)
	r.adopt(state, nil)
	r.change(func() {
		if r.next == next { // else a newer candidate has begun
			r.next, r.staging, r.progress = nil, nil, ""
		}
	})
	return true
}

// judge ends the trial of the target if there is a verdict.
func (r *Reconciler) judge(v view) {
	if !r.state.Trial {
		return
	}
	r.mu.Lock()
	verdict := Judge(r.state.Target, r.state.LastGood, v.observed, r.failures, v.at)
	r.mu.Unlock()
	if !slices.Equal(verdict.Modules, r.verdict.Modules) || verdict.Until != r.verdict.Until {
		r.change(func() { r.verdict = verdict })
	}
	commit := r.state.Target.Revision.Short()
	switch {
	case verdict.State == Healthy && !r.declared:
		// What was never told to its modules has not proven anything.
	case verdict.State == Healthy:
		r.Log.Info("keep as last-good", "revision", commit)
		r.decide(r.state.keep())
	case verdict.State == Failed && !r.state.LastGood.Revision.IsZero():
		worst := verdict.Worst()
		why := schema.Refusal{Revision: r.state.Target.Revision, Phase: schema.PhaseGating, Module: worst.Module, Reason: worst.String(), At: v.at.UTC()}
		r.Log.Warn("roll back", "revision", commit, "to", r.state.LastGood.Revision.Short(), "module", why.Module, "reason", why.Reason)
		r.decide(r.state.rollBack(why))
	case verdict.State == Failed && r.news.is("verdict", verdict.String()):
		r.Log.Warn("no last-good to roll back to", "revision", commit, "reason", verdict.String())
	}
}

// decide makes s the state, on the disk and here. What cannot be written now is
// acted on all the same and written later: after a power cut in between, the
// device decides it again.
func (r *Reconciler) decide(s state) { r.adopt(s, s.save(r.StateDir)) }

// adopt makes s the state here; err is what came of saving it.
func (r *Reconciler) adopt(s state, err error) {
	r.note(troubleState, err)
	another := s.Target.Revision.Commit != r.state.Target.Revision.Commit
	r.change(func() {
		if another {
			r.previous = r.state.Target
			r.declared, r.settled = false, false
			r.verdict, r.failures = Verdict{}, failures{} // a new target resets every back-off
			r.refused = s.Refused
			r.leave()
		}
		r.state, r.unsaved, r.pruned = s, err != nil, false
	})
	r.restock.now()
}
