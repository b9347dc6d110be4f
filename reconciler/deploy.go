package reconciler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// candidate is the newest acceptable commit, while it is made the next target
// and until a newer one comes.
type candidate struct {
	revision schema.Revision
	drop     context.CancelFunc
	again    *kick // try again now
}

// deployment fetches, for as long as ctx lasts, and stages each newer commit
// beside it.
func (r *Reconciler) deployment(ctx context.Context) {
	current := candidate{drop: func() {}, again: &kick{}}
	defer func() { current.drop() }()
	for tries := 0; ctx.Err() == nil; {
		revision, tree, err := r.Source.Fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		r.fetched(revision, err)
		if err == nil && revision.Commit != current.revision.Commit {
			current.drop()
			current = r.consider(ctx, revision, tree)
		}
		wait := jitter(r.Poll)
		if err == nil || final(err) {
			tries = 0
		} else {
			wait = min(wait, retryAfter(tries))
			tries++
		}
		if pause(ctx, wait, &r.moved) {
			current.again.now()
		}
	}
}

// fetched takes down what came of a fetch.
func (r *Reconciler) fetched(revision schema.Revision, err error) {
	refused, isRefused := errors.AsType[*schema.RefusedError](err)
	switch {
	case isRefused:
		r.note(troubleSource, nil)
		r.refuse(refused)
	case err != nil:
		r.note(troubleSource, fmt.Errorf("fetch: %w", err))
	default:
		r.note(troubleSource, nil)
	}
	r.change(func() {
		if r.progress == schema.PhaseFetching {
			r.progress = ""
		}
		if err == nil && revision.Commit == r.state.Target.Revision.Commit {
			r.refused = nil
		}
	})
}

// consider begins to stage a commit that is not the one before, unless it runs
// already or is known as bad.
func (r *Reconciler) consider(ctx context.Context, revision schema.Revision, tree fs.FS) candidate {
	ctx, drop := context.WithCancel(ctx)
	c := candidate{revision, drop, &kick{}}
	var runs, isBad bool
	r.change(func() {
		var bad schema.Refusal
		runs = revision.Commit == r.state.Target.Revision.Commit
		if bad, isBad = r.state.bad(revision.Commit); isBad {
			r.refused = &bad
		}
		r.next, r.staging, r.progress = nil, nil, ""
	})
	r.note(troubleStaging, nil)
	if !runs && !isBad {
		r.Log.Info("new revision", "revision", revision.Short(), "subject", revision.Subject, "author", revision.Author, "signer", revision.Signer)
		r.work.Go(func() { r.deploy(ctx, c, tree) })
	}
	return c
}

// deploy stages the candidate, as often as it takes, until it is staged, refused
// or dropped.
func (r *Reconciler) deploy(ctx context.Context, c candidate, tree fs.FS) {
	for tries := 0; ctx.Err() == nil; tries++ {
		err := r.stage(ctx, c.revision, tree)
		if ctx.Err() != nil {
			return
		}
		if refused, ok := errors.AsType[*schema.RefusedError](err); ok {
			r.note(troubleStaging, nil)
			r.refuse(refused)
			r.advance(ctx, "", nil)
			if refused.Phase == schema.PhaseVerifying {
				// The signature may come after the commit: pipelines do both.
				pause(ctx, retryAfter(tries), c.again)
				continue
			}
			return
		}
		if err != nil {
			err = fmt.Errorf("stage revision %s: %w", c.revision.Short(), err)
		}
		r.note(troubleStaging, err)
		if err == nil {
			return
		}
		pause(ctx, retryAfter(tries), c.again)
	}
}

// stage is deployment's part of the package comment, from step 2 on, a statement
// for each line.
func (r *Reconciler) stage(ctx context.Context, revision schema.Revision, tree fs.FS) error {
	desired, err := r.render(ctx, revision, tree)
	if err != nil {
		return err
	}
	if err := r.verifyAll(ctx, desired); err != nil {
		return err
	}
	if err := r.pullAll(ctx, desired); err != nil {
		return err
	}
	r.handOver(ctx, desired)
	return nil
}

func (r *Reconciler) render(ctx context.Context, revision schema.Revision, tree fs.FS) (schema.Desired, error) {
	r.advance(ctx, schema.PhaseRendering, nil)
	desired, err := r.Renderer.Render(ctx, tree, r.Device)
	if err == nil && desired.Device != r.Device {
		err = fmt.Errorf("the definition is for device %q, this is %q", desired.Device, r.Device)
	}
	if _, system := errors.AsType[syscall.Errno](err); system {
		return schema.Desired{}, fmt.Errorf("render: %w", err)
	}
	if err != nil {
		return schema.Desired{}, &schema.RefusedError{Revision: revision, Phase: schema.PhaseRendering, Err: err}
	}
	desired.Revision = revision
	return desired, nil
}

func (r *Reconciler) verifyAll(ctx context.Context, desired schema.Desired) error {
	r.advance(ctx, schema.PhaseVerifying, imagesOf(desired))
	return each(ctx, imagesOf(desired), func(ctx context.Context, image schema.Image) error {
		err := r.verify(ctx, image)
		if refused, ok := errors.AsType[*signing.RefusedError](err); ok {
			return &schema.RefusedError{Revision: desired.Revision, Phase: schema.PhaseVerifying, Module: userOf(desired, image), Err: refused}
		}
		return inModule(desired, image, err)
	})
}

func (r *Reconciler) pullAll(ctx context.Context, desired schema.Desired) error {
	r.advance(ctx, schema.PhaseStaging, imagesOf(desired))
	return each(ctx, imagesOf(desired), func(ctx context.Context, image schema.Image) error {
		return inModule(desired, image, r.pull(ctx, image))
	})
}

// handOver lets supervision take over, unless a newer commit came meanwhile.
func (r *Reconciler) handOver(ctx context.Context, desired schema.Desired) {
	r.change(func() {
		if ctx.Err() == nil {
			r.next = &desired
		}
	})
	r.look.now()
}

// advance shows the step that deployment is at, none when phase is empty, and
// which images it needs from here on.
func (r *Reconciler) advance(ctx context.Context, phase string, images []schema.Image) {
	r.change(func() {
		if ctx.Err() == nil {
			r.progress, r.staging = phase, images
		}
	})
}

// refuse takes down that a commit is not run, and why.
func (r *Reconciler) refuse(e *schema.RefusedError) {
	why := schema.Refusal{Revision: e.Revision, Phase: e.Phase, Module: e.Module, Reason: e.Err.Error(), At: time.Now().UTC()}
	again := false
	r.change(func() {
		again = r.refused != nil && r.refused.Revision.Commit == why.Revision.Commit && r.refused.Reason == why.Reason
		if !again {
			r.refused = &why
		}
	})
	if !again {
		r.Log.Warn("refuse", "revision", why.Revision.Short(), "phase", why.Phase, "module", why.Module, "reason", why.Reason)
	}
}

// final reports whether trying the same commit again gives the same answer.
func final(err error) bool {
	_, refused := errors.AsType[*schema.RefusedError](err)
	return refused
}

// inModule says which module needs the image.
func inModule(desired schema.Desired, image schema.Image, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("module %s: %w", userOf(desired, image), err)
}

// userOf is the first module that runs from the image.
func userOf(desired schema.Desired, image schema.Image) string {
	for _, m := range desired.Modules {
		if m.Image == image && m.Status != schema.StatusStopped {
			return m.Name
		}
	}
	return ""
}
