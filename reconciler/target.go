package reconciler

import (
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/schema"
)

// Only supervision writes the target, whether it is on trial, and last-good, so
// it reads them without the lock. Orders of people change the rest of the state
// beside it: all of it changes under r.deciding.

// takeOver makes the revision that deployment has staged the target, once that
// is on the disk. It reports whether there is a target.
func (r *Reconciler) takeOver() bool {
	r.mu.Lock()
	next, unsaved := r.next, r.unsaved
	r.mu.Unlock()
	if unsaved {
		r.decide(func(s state) state { return s })
	}
	if next != nil && r.adopt(*next) {
		r.Log.Info("take over", "revision", next.Revision.Short(), "subject", next.Revision.Subject, "signer", next.Revision.Signer)
		failpoint.Reach("reconciler.adopted")
		r.record(schema.Event{At: time.Now().UTC(), Kind: schema.EventTakenOver, Revision: next.Revision})
		r.change(func() {
			if r.next == next { // else a newer candidate has begun
				r.next, r.staging, r.progress = nil, nil, ""
			}
		})
		r.aimed.now()
	}
	return r.state.accepted()
}

// adopt makes next the target, unless an order is against it, or a newer commit
// came meanwhile: only of the newest is it known whether an order is.
func (r *Reconciler) adopt(next schema.Desired) bool {
	r.deciding.Lock()
	defer r.deciding.Unlock()
	commit := next.Revision.Commit
	r.mu.Lock()
	newest := r.newest.revision
	r.mu.Unlock()
	old := !newest.IsZero() && newest.Commit != commit
	if (old || !r.state.follows(commit)) && !r.state.returns(commit) {
		return false
	}
	s := r.state.takeOver(next, r.Boot)
	if err := s.save(r.StateDir); err != nil {
		r.note(troubleState, err) // rather go on with the old target than run what a power cut would forget
		return false
	}
	failpoint.Reach("reconciler.saved")
	r.become(s, nil)
	return true
}

// judge ends the trial of the target if there is a verdict.
func (r *Reconciler) judge(v view) {
	if !r.state.Trial {
		return
	}
	verdict := r.onTrial(v)
	if !slices.Equal(verdict.Modules, r.verdict.Modules) || verdict.Until != r.verdict.Until {
		r.change(func() { r.verdict = verdict })
	}
	commit := r.state.Target.Revision.Short()
	switch {
	case verdict.State == Healthy && !r.declared:
		r.undeclared(v)
	case verdict.State == Healthy:
		r.Log.Info("keep as last-good", "revision", commit)
		failpoint.Reach("reconciler.keep")
		r.decide(state.keep)
		r.record(schema.Event{At: v.at.UTC(), Kind: schema.EventHealthy, Revision: r.state.Target.Revision})
		failpoint.Reach("reconciler.kept")
		r.preserve()
	case verdict.State == Failed && !r.state.LastGood.Revision.IsZero():
		worst := verdict.Worst()
		r.rollBack(schema.Refusal{
			Revision: r.state.Target.Revision, Phase: schema.PhaseGating, At: v.at.UTC(),
			Module: worst.Module, Reason: worst.String(), Output: r.saidLast(worst.Module),
		})
	case verdict.State == Failed && r.news.is("verdict", verdict.String()):
		r.Log.Warn("no last-good to roll back to", "revision", commit, "reason", verdict.String())
	}
}

// undeclared looks at a revision all of whose modules hold while its twins are
// not declared. What was never told to its modules has not proven anything, and
// when the deadline passes it has failed.
func (r *Reconciler) undeclared(v view) {
	r.mu.Lock()
	err := r.trouble[troubleTwin]
	r.mu.Unlock()
	if err == nil || v.at.Before(r.since.Add(deadlineOf(r.state.Target))) || r.state.LastGood.Revision.IsZero() {
		return
	}
	r.rollBack(schema.Refusal{Revision: r.state.Target.Revision, Phase: schema.PhaseGating, At: v.at.UTC(), Reason: err.Error()})
}

// rollBack makes last-good the target: the revision on trial failed.
func (r *Reconciler) rollBack(why schema.Refusal) {
	r.Log.Warn("roll back", "revision", why.Revision.Short(), "to", r.state.LastGood.Revision.Short(), "module", why.Module, "reason", why.Reason)
	failpoint.Reach("reconciler.rollback")
	r.decide(func(s state) state { return s.rollBack(why) })
	r.record(returned(why))
}

// decide changes the state, on the disk and here. What cannot be written now is
// acted on all the same and written later: after a power cut in between, the
// device decides it again.
func (r *Reconciler) decide(change func(state) state) {
	r.deciding.Lock()
	defer r.deciding.Unlock()
	s := change(r.state)
	r.become(s, s.save(r.StateDir))
}

// become makes s the state here; err is what came of saving it. The caller holds
// r.deciding.
func (r *Reconciler) become(s state, err error) {
	r.note(troubleState, err)
	another := s.Target.Revision.Commit != r.state.Target.Revision.Commit
	if another || !s.Trial {
		r.note(troubleTrial, nil)
	}
	r.change(func() {
		if another {
			r.previous = r.state.Target
			r.declared, r.settled, r.calm = false, false, time.Time{}
			r.startOver() // a new target resets every back-off
			r.refused = nil
			r.leave()
		}
		r.state, r.unsaved, r.pruned = s, err != nil, false
		r.review()
	})
	r.restock.now()
}

// preserve keeps the definition of last-good, for a person to return to when it
// is not that any more.
func (r *Reconciler) preserve() {
	if !r.state.LastGood.Revision.IsZero() {
		r.note(troubleHistory, r.revisions.Keep(r.state.LastGood))
	}
}

// retell adds to the history why the device returned from a revision, where the
// agent ended before it could.
func (r *Reconciler) retell() {
	why := r.state.Refused
	if why == nil {
		return
	}
	if e := returned(*why); !r.events.Knows(e) {
		r.record(e)
	}
}

// returned is a return from a revision as the history tells it.
func returned(why schema.Refusal) schema.Event {
	return schema.Event{
		At: why.At, Kind: schema.EventRolledBack, Revision: why.Revision,
		Module: why.Module, Reason: why.Reason, Output: why.Output, By: why.By,
	}
}

// record adds to the history. A device whose history cannot be written works on.
func (r *Reconciler) record(e schema.Event) { r.note(troubleHistory, r.events.Add(e)) }
