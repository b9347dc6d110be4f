package reconciler

import "github.com/tidemark-edge/tidemark/schema"

// Topics of trouble: what can keep the device from its work.
const (
	troubleSource  = "source"  // the fleet repository cannot be reached
	troubleStaging = "staging" // the candidate cannot be staged for now
	troubleImages  = "images"  // an image of the target or of last-good is missing
	troublePrune   = "prune"   // images that nothing needs stay on the disk
	troubleRuntime = "runtime" // containers cannot be observed
	troubleTwin    = "twin"    // the target's twins cannot be declared
	troubleReport  = "report"  // the report cannot be handed over
	troubleState   = "state"   // state.json was broken, or cannot be written
	troubleTrial   = "trial"   // agent or machine keep dying under the device's first revision
	troubleHistory = "history" // what is remembered of earlier revisions was broken, or cannot be written
)

// note takes down trouble, or that it is over when err is nil. The log has a
// line when it begins, changes or ends.
func (r *Reconciler) note(topic string, err error) {
	switch {
	case err == nil && r.news.over(topic):
		r.Log.Info("trouble is over", "topic", topic)
		r.change(func() { delete(r.trouble, topic) })
	case err != nil && r.news.is(topic, err.Error()):
		r.Log.Warn("trouble", "topic", topic, "error", err)
		r.change(func() { r.trouble[topic] = err })
	}
}

// change makes a change that the report shows, and logs the phase if that is
// another one now.
func (r *Reconciler) change(do func()) {
	r.mu.Lock()
	do()
	phase, was, commit := r.phaseNow(), r.phase, r.state.Target.Revision.Short()
	r.phase = phase
	r.mu.Unlock()
	if phase != was {
		r.Log.Info("phase", "phase", phase, "was", was, "target", commit)
	}
	r.changed.now()
}

// phaseNow is the device's phase. The caller holds r.mu.
func (r *Reconciler) phaseNow() string {
	switch {
	case r.progress != "":
		return r.progress
	case !r.state.accepted():
		return schema.PhaseWaiting
	case r.state.Trial && !r.settled && r.state.Refused == nil:
		return schema.PhaseSwitching
	case r.state.Trial && !r.settled:
		return schema.PhaseRollingBack // to what a person wants back
	case r.state.Trial:
		return schema.PhaseGating
	case r.state.Refused != nil && !r.settled:
		return schema.PhaseRollingBack
	case r.state.Order != nil:
		return schema.PhaseSuspended
	case r.state.Refused != nil || r.newestIsBad():
		return schema.PhaseRolledBack
	default:
		return schema.PhaseHealthy
	}
}

// newestIsBad reports whether the newest commit is not tried again, and an earlier
// one runs: also when the device came to that by way of a person's orders. The
// caller holds r.mu.
func (r *Reconciler) newestIsBad() bool {
	newest := r.newest.revision.Commit
	_, bad := r.state.bad(newest)
	return bad && newest != r.state.Target.Revision.Commit
}
