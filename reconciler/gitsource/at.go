package gitsource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/tidemark-edge/tidemark/schema"
)

// maxPinned bounds how many commits that At returned stay on disk.
const maxPinned = 4

// Accepted returns the accepted commit and its tree from disk: no network. A
// commit whose signer is not trusted any more is a *schema.RefusedError.
func (s *Source) Accepted() (schema.Revision, fs.FS, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Revision.IsZero() {
		return schema.Revision{}, nil, ErrNothingAccepted
	}
	if err := s.soundness(); err != nil {
		s.damaged.Store(true)
		return s.state.Revision, nil, fmt.Errorf("read the accepted commit: %w; the next fetch makes the clone anew", err)
	}
	tree, err := s.acceptedTree()
	if err == nil {
		err = s.trust()
	}
	if err != nil {
		return s.state.Revision, nil, err
	}
	return s.state.Revision, tree, nil
}

// At returns one commit, by its full hash, and its tree: the accepted one, or
// an ancestor of it. What is not on disk is fetched. Where signatures are
// checked, it must be signed like any other.
func (s *Source) At(ctx context.Context, commit string) (schema.Revision, fs.FS, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Revision.IsZero() {
		return schema.Revision{}, nil, ErrNothingAccepted
	}
	if !plumbing.IsHash(commit) {
		return schema.Revision{}, nil, fmt.Errorf("commit %q: want the full hash, 40 digits", printable(commit, 64))
	}
	id := plumbing.NewHash(commit)
	if err := s.soundness(); err == nil && s.ancestorOnDisk(id) {
		if revision, tree, err := s.open(id); err == nil {
			return revision, tree, nil
		}
	}
	ctx, dog, stop := watch(ctx, s.Limits.Stall)
	defer stop()
	conn, tip, err := s.ask(ctx, dog)
	if err != nil {
		return schema.Revision{}, nil, err
	}
	defer conn.close()
	if err := s.fetchAncestor(ctx, conn, tip, id); err != nil {
		return schema.Revision{}, nil, s.explainAt(ctx, err)
	}
	return s.open(id)
}

// errNoAncestor: asked for a commit that the device never accepted.
var errNoAncestor = errors.New("neither the accepted commit nor an ancestor of it")

func (s *Source) explainAt(ctx context.Context, err error) error {
	var refused *schema.RefusedError
	if errors.Is(err, errNoAncestor) || errors.As(err, &refused) || isUnfit(err) {
		return err
	}
	return s.unreachable(ctx, err)
}

// ancestorOnDisk reports whether the clone alone shows that id may be read.
func (s *Source) ancestorOnDisk(id plumbing.Hash) bool {
	if id == s.state.id() {
		return true
	}
	for _, r := range s.state.Earlier {
		if plumbing.NewHash(r.Commit) == id {
			return true
		}
	}
	seen := map[plumbing.Hash]bool{}
	for queue := []plumbing.Hash{s.state.id()}; len(queue) > 0; queue = queue[1:] {
		c, err := readCommit(s.current(), queue[0])
		if err != nil {
			continue
		}
		for _, p := range c.parents {
			if p == id {
				return true
			}
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	return false
}

// open returns a commit that is on disk as a whole.
func (s *Source) open(id plumbing.Hash) (schema.Revision, fs.FS, error) {
	c, err := readCommit(s.current(), id)
	if err != nil {
		return schema.Revision{}, nil, err
	}
	if err := survey(s.current(), c.tree, s.Limits); err != nil {
		return schema.Revision{}, nil, fmt.Errorf("commit %.12s: %w", id, err)
	}
	signer, err := s.verify(graph{id: c}, []plumbing.Hash{id}, time.Time{})
	if err != nil {
		return schema.Revision{}, nil, s.refuse(graph{id: c}, id, err)
	}
	s.pinned = append([]plumbing.Hash{id}, s.pinned...)
	s.pinned = s.pinned[:min(len(s.pinned), maxPinned)]
	return c.revision(id, s.repo.Branch, signer), newTreeFS(s, c, s.Limits), nil
}

// fetchAncestor brings an ancestor of the accepted commit to the disk.
func (s *Source) fetchAncestor(ctx context.Context, conn remote, tip, id plumbing.Hash) error {
	q := newQuarantine(s.current(), s.Limits)
	defer q.discard()
	base := s.state.id()
	below := map[plumbing.Hash]bool{base: true}
	err := q.deepen(ctx, conn, tip, plumbing.ZeroHash, func() bool {
		if base != id {
			below = q.history.below(base)
		}
		return below[id] && q.history[id] != nil || q.history.complete(tip)
	})
	if err != nil && !errors.Is(err, errTooFar) {
		return err
	}
	steps := q.history.distance(tip, id)
	if !below[id] || steps < 0 {
		return fmt.Errorf("commit %.12s: %w", id, errNoAncestor)
	}
	if err := q.bring(ctx, conn, request{want: tip, depth: steps + 1}); err != nil {
		return err
	}
	return q.release()
}

// complete reports whether every ancestor of tip is known.
func (g graph) complete(tip plumbing.Hash) bool {
	if g[tip] == nil {
		return false
	}
	for _, c := range g {
		for _, p := range c.parents {
			if g[p] == nil {
				return false
			}
		}
	}
	return true
}
