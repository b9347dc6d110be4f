package reconciler

import (
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// maxEarly bounds what is noted before the history is open.
const maxEarly = 100

// Note adds to the history what a person did on the device that is no order, and
// what came of it: the revision that runs is filled in. It may be called before Run.
func (r *Reconciler) Note(e schema.Event) {
	r.deciding.Lock()
	open, revision := r.events != nil, r.state.Target.Revision
	if !open && len(r.early) < maxEarly {
		r.early = append(r.early, e)
	}
	r.deciding.Unlock()
	if !open {
		return
	}
	e.At, e.Revision = e.At.UTC().Truncate(time.Millisecond), revision
	r.record(e)
}

// noteEarly adds what was noted before the history was open.
func (r *Reconciler) noteEarly() {
	r.deciding.Lock()
	early := r.early
	r.early = nil
	r.deciding.Unlock()
	for _, e := range early {
		r.Note(e)
	}
}
