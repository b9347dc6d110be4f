package reconciler

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// deploy stages the candidate, as often as it takes, until it is staged, refused
// for good or dropped.
func (r *Reconciler) deploy(ctx context.Context, c candidate) {
	r.beginStaging(ctx, c)
	defer r.endStaging(c.revision.Commit)
	for tries := 0; ctx.Err() == nil; tries++ {
		err := r.stage(ctx, c.aim)
		if ctx.Err() != nil {
			return
		}
		r.endStaging(c.revision.Commit)
		wait := Backoff(schema.Restart{}, tries)
		refused, isRefused := errors.AsType[*schema.RefusedError](err)
		unread, isUnread := errors.AsType[*unreadError](err)
		switch {
		case err == nil:
			r.note(troubleStaging, nil)
			return
		case isRefused:
			r.note(troubleStaging, nil)
			r.rest(ctx, refused.Phase)
			r.refuse(refused)
			if refused.Phase == schema.PhaseRendering {
				return // it says the same each time
			}
		case isUnread:
			r.note(troubleStaging, unread)
			wait = min(wait, jitter(r.Poll)) // the repository may be what it waits for
		default:
			err = r.owned(ctx, fmt.Errorf("stage revision %s: %w", c.revision.Short(), err))
			if ctx.Err() != nil {
				return
			}
			r.note(troubleStaging, err)
		}
		// A signature may come after the commit, as pipelines do both; room may be
		// made; a network may come back.
		pause(ctx, wait, c.again)
	}
}

// stage is deployment's part of the package comment, from step 2 on, a statement
// for each line.
func (r *Reconciler) stage(ctx context.Context, a aim) error {
	desired, err := r.render(ctx, a)
	if err != nil {
		return err
	}
	if err := r.verifyAll(ctx, desired); err != nil {
		return err
	}
	r.advance(ctx, schema.PhaseStaging)
	if err := r.room(ctx, desired); err != nil {
		return err
	}
	if err := r.pullAll(ctx, desired); err != nil {
		return err
	}
	r.handOver(ctx, desired)
	return nil
}

func (r *Reconciler) render(ctx context.Context, a aim) (schema.Desired, error) {
	r.advance(ctx, schema.PhaseRendering)
	desired, err := schema.Desired{}, error(nil)
	if a.kept != nil {
		desired = *a.kept
	} else {
		desired, err = r.Renderer.Render(ctx, a.tree, r.Device)
	}
	if err == nil && desired.Device != r.Device {
		err = fmt.Errorf("the definition is for device %q, this is %q", desired.Device, r.Device)
	}
	if _, system := errors.AsType[syscall.Errno](err); system {
		r.moved.now() // fetching mends a copy of the repository that cannot be read
		return schema.Desired{}, &unreadError{a.revision, err}
	}
	if err == nil && r.Permits != nil {
		err = r.Permits(desired)
	}
	if err != nil {
		return schema.Desired{}, &schema.RefusedError{Revision: a.revision, Phase: schema.PhaseRendering, Err: err}
	}
	desired.Revision = a.revision
	return desired, nil
}

// unreadError says that this device could not render the revision, whatever the
// commit says.
type unreadError struct {
	revision schema.Revision
	err      error
}

func (e *unreadError) Error() string {
	return fmt.Sprintf("stage revision %s: render: %v", e.revision.Short(), e.err)
}

func (e *unreadError) Unwrap() error { return e.err }

func (r *Reconciler) verifyAll(ctx context.Context, desired schema.Desired) error {
	r.advance(ctx, schema.PhaseVerifying)
	r.needs(ctx, imagesOf(desired))
	return each(ctx, imagesOf(desired), func(ctx context.Context, image schema.Image) error {
		err := r.verify(ctx, image)
		if refused, ok := errors.AsType[*signing.RefusedError](err); ok {
			return &schema.RefusedError{Revision: desired.Revision, Phase: schema.PhaseVerifying, Module: userOf(desired, image), Err: inModule(desired, image, refused)}
		}
		return inModule(desired, image, err)
	})
}

func (r *Reconciler) pullAll(ctx context.Context, desired schema.Desired) error {
	return r.fitting(ctx, desired, func() error {
		return each(ctx, imagesOf(desired), func(ctx context.Context, image schema.Image) error {
			return inModule(desired, image, r.pull(ctx, image))
		})
	})
}

// handOver lets supervision take over, unless a newer commit came meanwhile.
func (r *Reconciler) handOver(ctx context.Context, desired schema.Desired) {
	r.change(func() {
		if ctx.Err() == nil {
			r.next = &desired
		}
	})
	r.lookNow()
}

// advance shows the step that deployment is at.
func (r *Reconciler) advance(ctx context.Context, phase string) {
	r.change(func() {
		if ctx.Err() == nil {
			r.progress = phase
		}
	})
}

// rest shows that deployment waits. What a candidate that lacks a signature, or
// room, has on the disk stays there: it is tried again.
func (r *Reconciler) rest(ctx context.Context, phase string) {
	r.change(func() {
		if ctx.Err() != nil {
			return
		}
		if r.progress = ""; phase == schema.PhaseRendering {
			r.unclear = time.Now().Add(mendTime)
			time.AfterFunc(mendTime, r.restock.now)
		}
	})
}

// inModule says which module needs the image.
func inModule(desired schema.Desired, image schema.Image, err error) error {
	if err == nil {
		return nil
	}
	if user := userOf(desired, image); user != "" {
		return fmt.Errorf("module %s: %w", user, err)
	}
	return fmt.Errorf("keep: %w", err)
}

// userOf is the first module that runs from the image; none when it is only kept.
func userOf(desired schema.Desired, image schema.Image) string {
	for _, m := range desired.Modules {
		if m.Image == image && m.Status != schema.StatusStopped {
			return m.Name
		}
	}
	return ""
}
