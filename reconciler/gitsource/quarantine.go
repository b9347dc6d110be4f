package gitsource

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
)

// quarantine holds what one Fetch brought until it is accepted: nothing in it
// is part of the clone yet.
type quarantine struct {
	store   *store
	limits  Limits
	packs   []*pack
	history graph
}

func newQuarantine(s *store, limits Limits) *quarantine {
	return &quarantine{store: s, limits: limits, history: graph{}}
}

// objects are what was brought, and what was there before.
func (q *quarantine) objects() objects {
	var l layers
	for _, p := range q.packs {
		l = append(l, p)
	}
	return append(l, q.store)
}

// bring asks for objects and keeps them.
func (q *quarantine) bring(ctx context.Context, conn remote, req request) error {
	p, err := q.receive(ctx, conn, req)
	if err != nil || p == nil {
		return err
	}
	q.packs = append(q.packs, p)
	return q.history.add(p)
}

// learn asks for history only, and keeps the commits in memory.
func (q *quarantine) learn(ctx context.Context, conn remote, req request) error {
	p, err := q.receive(ctx, conn, req)
	if err != nil || p == nil {
		return err
	}
	defer p.discard()
	return q.history.add(p)
}

func (q *quarantine) receive(ctx context.Context, conn remote, req request) (*pack, error) {
	r, err := conn.pack(ctx, req)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return receive(r, q.store.incoming(), q.limits)
}

// errTooFar: history goes on beyond what is looked at.
var errTooFar = errors.New("too far apart")

// deepen learns history from tip on until enough of it is known.
func (q *quarantine) deepen(ctx context.Context, conn remote, tip, have plumbing.Hash, enough func() bool) error {
	for depth := 16; !enough(); depth *= 8 {
		if depth/8 >= q.limits.Commits {
			return errTooFar
		}
		req := request{want: tip, depth: min(depth, q.limits.Commits), commitsOnly: conn.filters()}
		if !req.commitsOnly {
			req.have = have // spares the files that are here
		}
		if err := q.learn(ctx, conn, req); err != nil {
			return fmt.Errorf("look %d commits back: %w", req.depth, err)
		}
	}
	return nil
}

// release makes everything part of the clone.
func (q *quarantine) release() error {
	for len(q.packs) > 0 {
		if err := q.store.install(q.packs[0]); err != nil {
			return err
		}
		q.packs = q.packs[1:]
	}
	return nil
}

// discard forgets everything.
func (q *quarantine) discard() {
	for _, p := range q.packs {
		p.discard()
	}
	q.packs = nil
}
