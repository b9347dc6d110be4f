package reconciler

import (
	"context"
	"errors"
	"io/fs"

	"github.com/tidemark-edge/tidemark/schema"
)

// commit is an acceptable commit of the fleet repository.
type commit struct {
	revision schema.Revision
	tree     fs.FS
}

// fetching looks at the fleet repository for as long as ctx lasts. What was
// accepted before the agent ended is looked at first: it may not run yet, and
// the newest commit may be one that is refused.
func (r *Reconciler) fetching(ctx context.Context) {
	if revision, tree, err := r.Source.Accepted(); err == nil {
		r.found(commit{revision, tree})
	}
	if r.aim().revision.IsZero() {
		r.needs(ctx, nil)
	}
	for tries := 0; ctx.Err() == nil; {
		revision, tree, err := r.Source.Fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		r.fetched(commit{revision, tree}, err)
		wait := jitter(r.Poll)
		if err == nil || final(err) {
			tries = 0
		} else {
			wait = min(wait, Backoff(schema.Restart{}, tries))
			tries++
		}
		pause(ctx, wait, &r.moved)
	}
}

// fetched takes down what came of a fetch.
func (r *Reconciler) fetched(c commit, err error) {
	refused, isRefused := errors.AsType[*schema.RefusedError](err)
	switch {
	case isRefused:
		r.note(troubleSource, nil)
		r.reject(refused)
	case err != nil:
		r.note(troubleSource, err)
	default:
		r.note(troubleSource, nil)
		r.found(c)
	}
	r.change(func() {
		if r.progress == schema.PhaseFetching {
			r.progress = ""
		}
		if err == nil {
			r.rejected = nil
		}
	})
}

// found makes c the newest acceptable commit.
func (r *Reconciler) found(c commit) {
	r.mu.Lock()
	known := r.newest.revision.Commit == c.revision.Commit
	r.mu.Unlock()
	if known {
		return
	}
	r.change(func() {
		r.newest, r.setback, r.refused = c, "", nil
		r.review()
	})
	r.aimed.now()
}
