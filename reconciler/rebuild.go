package reconciler

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/tidemark-edge/tidemark/reconciler/history"
	"github.com/tidemark-edge/tidemark/schema"
)

// rebuild is the state of a device that has none, because the file was broken or
// is lost: s as it is where the history knows of no good revision either. why is
// what came of reading the file. The next start finds the file again: the
// trouble that is reported is the only trace of it.
func (r *Reconciler) rebuild(s state, why error, events *history.Log, revisions *history.Revisions) (state, error) {
	for _, good := range revisions.List() {
		newest, err := revisions.Load(good.Commit)
		if err != nil {
			why = errors.Join(why, err)
			continue
		}
		s = rebuilt(newest, events.Events())
		why = cmp.Or(why, errors.New("the state is lost"))
		why = fmt.Errorf("%w; the newest good revision, %s, runs in its place", why, good.Short())
		return s, errors.Join(why, s.save(r.StateDir))
	}
	return s, why
}

// rebuilt is the state of a device whose state file was broken, from what its
// history tells: the newest good revision runs, and what was found bad or
// ordered stays so. That the device returned from a revision holds until another
// one is taken over, but for the one that a person wanted back.
func rebuilt(good schema.Desired, events []schema.Event) state {
	s, back := state{Target: good, LastGood: good}, ""
	for _, e := range events {
		commit := e.Revision.Commit
		why := schema.Refusal{Revision: e.Revision, Phase: schema.PhaseGating, Module: e.Module, Reason: e.Reason, Output: e.Output, By: e.By, At: e.At}
		switch e.Kind {
		case schema.EventRolledBack:
			s = s.mark(why)
			s.Refused, back = &why, ""
		case schema.EventTakenOver, schema.EventHealthy:
			s = s.retry(commit)
			if s.Refused != nil && s.Refused.By != "" && back == "" {
				back = commit
			}
			if commit != back {
				s.Refused = nil
			}
		case schema.EventRetry:
			s = s.retry(commit)
		case schema.EventSuspend:
			s = s.suspend(Request{By: e.By, Reason: e.Reason}, e.At)
		case schema.EventHold:
			s.Order = &schema.Order{Kind: schema.OrderHold, Revision: e.Revision, By: e.By, Reason: e.Reason, At: e.At}
		case schema.EventResume:
			s = s.resume()
		}
	}
	return s
}
