package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A candidate whose staging ends the agent, with a panic or for its memory, would
// be staged first thing by every agent after, before a newer commit can be
// fetched. So the agents that began with it are counted, on the disk, until one
// comes to an end with it.
const maxStagings = 5 // in one boot of the machine

// staging is the candidate that is being staged, and by how many agents it was.
type staging struct {
	Commit string `json:"commit,omitempty"`
	Boot   string `json:"boot,omitempty"`   // of the machine
	Agents int    `json:"agents,omitempty"` // that began with it in this boot, and of which none came to an end
}

// next counts an agent that begins with the commit.
func (s staging) next(commit, boot string) staging {
	if s.Commit != commit || s.Boot != boot {
		s = staging{Commit: commit, Boot: boot}
	}
	s.Agents++
	return s
}

// beginStaging counts that this agent stages the commit. One that ended too many
// agents is given time to be succeeded first: a minute after the agent's start.
func (r *Reconciler) beginStaging(ctx context.Context, c candidate) {
	commit := c.revision.Commit
	r.mu.Lock()
	first := r.counted != commit
	r.counted = commit
	r.mu.Unlock()
	var before staging
	if first {
		r.restage(func(s staging) staging { before = s; return s.next(commit, r.Boot) })
	}
	if before.Commit != commit || before.Boot != r.Boot || before.Agents < maxStagings || ctx.Err() != nil {
		return
	}
	r.note(troubleStaging, &ownError{fmt.Errorf(
		"stage revision %s: %d agents ended while they were at it: it is tried again %v after the start, so that a newer one can come first",
		c.revision.Short(), before.Agents, calmAfterStart)})
	pause(ctx, time.Until(r.began.Add(calmAfterStart)), nil)
}

// endStaging takes down that the agent outlived staging the commit, whatever
// came of it.
func (r *Reconciler) endStaging(commit string) {
	r.restage(func(s staging) staging {
		if s.Commit == commit {
			return staging{}
		}
		return s
	})
}

// restage changes what the disk says of staging. A device that cannot write that
// stages all the same.
func (r *Reconciler) restage(change func(staging) staging) {
	r.deciding.Lock()
	defer r.deciding.Unlock()
	s := r.state
	if s.Staging = change(s.Staging); s.Staging == r.state.Staging {
		return
	}
	if err := s.save(r.StateDir); err != nil {
		r.note(troubleState, err)
	}
	r.mu.Lock()
	r.state.Staging = s.Staging
	r.mu.Unlock()
}

// ownError is a failure to stage a candidate that is this device's own: neither
// the network's nor a registry's.
type ownError struct{ error }

func (e *ownError) Unwrap() error { return e.error }

// owned marks a failure to stage as the device's own while its runtime does not
// even list containers.
func (r *Reconciler) owned(ctx context.Context, err error) error {
	if _, down := r.Runtime.Observe(ctx); down == nil {
		return err
	}
	r.look.now() // supervision shall say so too
	return &ownError{fmt.Errorf("%w (the container runtime does not answer)", err)}
}

func isOwn(err error) bool {
	_, own := errors.AsType[*ownError](err)
	return own
}
