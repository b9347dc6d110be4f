package reconciler

import (
	"context"

	"github.com/tidemark-edge/tidemark/schema"
)

// aim is the revision that deployment is to stage.
type aim struct {
	commit
	kept    *schema.Desired // its definition, where that is not to be rendered
	attempt int             // how often a person had it tried again
}

// is reports whether there is nothing to do to go from one aim to the other.
func (a aim) is(other aim) bool {
	return a.revision.Commit == other.revision.Commit && a.attempt == other.attempt && (a.kept == nil) == (other.kept == nil)
}

// candidate is an aim while it is made the next target, and until there is
// another one.
type candidate struct {
	aim
	drop  context.CancelFunc
	again *kick // try again now
}

// deployment stages what there is to stage, for as long as ctx lasts. Another
// aim pre-empts what it is at.
func (r *Reconciler) deployment(ctx context.Context) {
	current := candidate{drop: func() {}, again: &kick{}}
	defer func() { current.drop() }()
	for ctx.Err() == nil {
		if next := r.aim(); !next.is(current.aim) {
			current.drop()
			current = r.begin(ctx, next)
		}
		if pause(ctx, forever, &r.aimed) && r.eager.Swap(false) {
			current.again.now()
		}
	}
}

// aim is what is to be staged now; the zero aim when there is nothing. A newer
// commit that Git may make the target comes first; then what a person wants
// back, which also goes before a newer commit that was refused.
func (r *Reconciler) aim() aim {
	r.mu.Lock()
	defer r.mu.Unlock()
	newest := r.newest.revision.Commit
	switch {
	case r.state.follows(newest) && (r.state.Return == nil || r.setback != newest):
		return aim{commit: r.newest, attempt: r.attempt}
	case r.state.Return != nil:
		return aim{commit: commit{revision: r.state.Return.Definition.Revision}, kept: &r.state.Return.Definition, attempt: r.attempt}
	default:
		return aim{}
	}
}

// begin stages an aim, beside whatever else goes on.
func (r *Reconciler) begin(ctx context.Context, a aim) candidate {
	ctx, drop := context.WithCancel(ctx)
	c := candidate{a, drop, &kick{}}
	none := a.revision.IsZero()
	r.change(func() {
		r.leaveBehind()
		if r.progress != schema.PhaseFetching {
			r.progress = ""
		}
		if !none {
			r.refused = nil
		}
		r.review()
	})
	r.note(troubleStaging, nil)
	if none {
		r.needs(ctx, nil)
		return c
	}
	r.Log.Info("new revision", "revision", a.revision.Short(), "subject", a.revision.Subject, "author", a.revision.Author,
		"signer", a.revision.Signer, "returns", a.kept != nil)
	r.work.Go(func() { r.deploy(ctx, c) })
	return c
}
