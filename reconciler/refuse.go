package reconciler

import (
	"errors"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// refuse takes down that the candidate is not run, and why.
func (r *Reconciler) refuse(e *schema.RefusedError) {
	why := refusal(e)
	r.change(func() {
		if r.refused != nil && sayTheSame(*r.refused, why) {
			why.At = r.refused.At
		}
		r.refused, r.setback = &why, why.Revision.Commit
	})
	r.aimed.now()
	r.logRefusal(why)
}

// reject takes down that the newest commit is not acceptable. What is staged
// goes on: it was, and may be newer than what runs.
func (r *Reconciler) reject(e *schema.RefusedError) {
	why := refusal(e)
	r.change(func() {
		if r.rejected == nil || !sayTheSame(*r.rejected, why) {
			r.rejected = &why
		}
	})
	r.logRefusal(why)
}

func refusal(e *schema.RefusedError) schema.Refusal {
	return schema.Refusal{Revision: e.Revision, Phase: e.Phase, Module: e.Module, Reason: e.Err.Error(), At: time.Now().UTC()}
}

// logRefusal says a refusal once, in the log and in the history.
func (r *Reconciler) logRefusal(why schema.Refusal) {
	if !r.news.is("refuse "+why.Phase, why.Revision.Commit+" "+why.Module+" "+why.Reason) {
		return
	}
	r.Log.Warn("refuse", "revision", why.Revision.Short(), "phase", why.Phase, "module", why.Module, "reason", why.Reason)
	event := schema.Event{At: why.At, Kind: schema.EventRefused, Revision: why.Revision, Module: why.Module, Reason: why.Reason}
	if !r.events.Knows(event) {
		r.record(event)
	}
}

// review brings the refusal that is shown in line with what is known of the
// newest commit. The caller holds r.mu.
func (r *Reconciler) review() {
	newest := r.newest.revision.Commit
	bad, _ := r.state.bad(newest)
	switch {
	case r.newestIsBad():
		r.refused = &bad
	case r.refused != nil && r.refused.Revision.Commit == newest && staged(*r.refused):
		// Nothing on the disk says so, and it is still true.
	default:
		r.refused = r.state.Refused
	}
}

// shown is the refusal that a person must know of: the newest commit's. The
// caller holds r.mu.
func (r *Reconciler) shown() *schema.Refusal {
	if r.rejected != nil {
		return r.rejected
	}
	return r.refused
}

// staged reports whether staging refused, rather than the trial or a person.
func staged(why schema.Refusal) bool {
	switch why.Phase {
	case schema.PhaseRendering, schema.PhaseVerifying, schema.PhaseStaging:
		return why.By == ""
	default:
		return false
	}
}

// sayTheSame reports whether two refusals say the same.
func sayTheSame(a, b schema.Refusal) bool {
	a.At = b.At
	return a == b
}

// final reports whether trying the same commit again gives the same answer.
func final(err error) bool {
	_, refused := errors.AsType[*schema.RefusedError](err)
	return refused
}
