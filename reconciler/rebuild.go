package reconciler

import "github.com/tidemark-edge/tidemark/schema"

// rebuild is the state of a device whose state file was broken, from what its
// history tells: the newest good revision runs, and what was found bad or
// ordered stays so.
func rebuild(good schema.Desired, events []schema.Event) state {
	s := state{Target: good, LastGood: good}
	for _, e := range events {
		commit := e.Revision.Commit
		why := schema.Refusal{Revision: e.Revision, Phase: schema.PhaseGating, Module: e.Module, Reason: e.Reason, Output: e.Output, By: e.By, At: e.At}
		switch e.Kind {
		case schema.EventRolledBack:
			s = s.mark(why)
			s.Refused = &why
		case schema.EventTakenOver, schema.EventHealthy, schema.EventRetry:
			s = s.retry(commit)
		case schema.EventSuspend:
			s = s.suspend(Request{By: e.By, Reason: e.Reason}, e.At)
		case schema.EventResume:
			s = s.resume()
		}
	}
	return s
}
