package gitsource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
)

// load reads the state and opens the clone.
func (s *Source) load() error {
	if err := s.finishSwap(); err != nil {
		return err
	}
	st, err := openStore(s.clonePath())
	if err != nil {
		return err
	}
	s.store = st
	s.state, err = readAccepted(s.statePath())
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		aside, asideErr := setAside(s.statePath())
		if asideErr != nil {
			return fmt.Errorf("%w, and it cannot be set aside: %w", err, asideErr)
		}
		s.note("%v: set aside as %s", err, aside)
	}
	return s.recall(err)
}

// recall finds out from the clone what was accepted, when the state file is
// lost. Where the clone is lost as well, nothing is left to descend from: the
// device starts over like a new one, and takes the tip if its signature holds.
func (s *Source) recall(lost error) error {
	id := s.store.pointed(s.repo.Branch)
	c, err := readCommit(s.store, id)
	if err == nil {
		var signer string
		if signer, err = s.verify(graph{id: c}, []plumbing.Hash{id}, time.Time{}); err == nil {
			s.state = accepted{Revision: c.revision(id, s.repo.Branch, signer)}
			s.note("the accepted commit %s was recalled from the clone", s.state.Revision.Short())
			return s.state.write(s.statePath())
		}
	}
	if !errors.Is(lost, fs.ErrNotExist) || !id.IsZero() {
		s.note("what was accepted is lost, and the clone does not tell (%v): the next commit is taken by its signature alone", err)
	}
	return nil
}

// finishSwap completes or undoes an exchange of the clone that was cut short.
func (s *Source) finishSwap() error {
	_, err := os.Stat(s.clonePath())
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Rename(s.freshPath(), s.clonePath()); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = os.RemoveAll(s.freshPath())
	}
	if err != nil {
		return fmt.Errorf("open the clone: %w", err)
	}
	return nil
}

// soundness says what is wrong with the clone, if anything. The accepted tree
// is walked once after Open; files are hashed whenever they are read.
func (s *Source) soundness() error {
	st := s.current()
	switch {
	case s.damaged.Load():
		return errors.New("an object could not be read")
	case st.fault != nil:
		return st.fault
	case s.whole || s.state.Revision.IsZero():
		return nil
	}
	c, err := readCommit(st, s.state.id())
	if err != nil {
		return err
	}
	if err := survey(st, c.tree, s.Limits); err != nil && !isUnfit(err) {
		return err
	}
	s.whole = true
	return nil
}

// heal makes a damaged clone anew beside the old one, with the accepted commit
// in it, and exchanges the two. Until then the old one serves what it can.
func (s *Source) heal(ctx context.Context, conn remote, tip plumbing.Hash) error {
	fault := s.soundness()
	if fault == nil {
		return nil
	}
	if s.barren == tip { // it was tried with this tip, which is refused
		return s.refused
	}
	if err := os.RemoveAll(s.freshPath()); err != nil {
		return &diskError{err}
	}
	fresh, err := openStore(s.freshPath())
	if err != nil {
		return &diskError{err}
	}
	defer fresh.close()
	if base := s.state.id(); !base.IsZero() {
		if err := s.restore(ctx, conn, fresh, tip, base); err != nil {
			var refused *schema.RefusedError
			if errors.As(err, &refused) || isUnfit(err) {
				s.barren = tip
			}
			return fmt.Errorf("the clone is damaged (%w) and cannot be made anew: %w", fault, err)
		}
	}
	aside, err := s.exchange()
	if err != nil {
		return &diskError{err}
	}
	s.note("the clone was damaged (%v): set aside as %s and fetched anew", fault, aside)
	return nil
}

// restore brings the accepted commit into a fresh store.
func (s *Source) restore(ctx context.Context, conn remote, fresh *store, tip, base plumbing.Hash) error {
	q := newQuarantine(fresh, s.Limits)
	defer q.discard()
	depth := 1
	if tip != base {
		if _, err := s.line(ctx, conn, q, tip, base); err != nil {
			return err
		}
		depth += q.history.distance(tip, base)
	}
	if err := q.bring(ctx, conn, request{want: tip, depth: depth}); err != nil {
		return err
	}
	c, err := readCommit(q.objects(), base)
	if err != nil {
		return &transferError{err}
	}
	if err := survey(q.objects(), c.tree, s.Limits); err != nil {
		return &transferError{err}
	}
	if err := q.release(); err != nil {
		return &diskError{err}
	}
	boundary, err := fresh.boundary()
	if err != nil {
		return err
	}
	if err := fresh.point(s.repo.Branch, base, boundary); err != nil {
		return &diskError{err}
	}
	return nil
}

// exchange puts the fresh store in the place of the old one.
func (s *Source) exchange() (aside string, err error) {
	if aside, err = setAside(s.clonePath()); err != nil {
		return "", err
	}
	if err := os.Rename(s.freshPath(), s.clonePath()); err != nil {
		return "", err
	}
	if err := durable.SyncDir(s.dir); err != nil {
		return "", err
	}
	st, err := openStore(s.clonePath())
	if err != nil {
		return "", err
	}
	s.storeMu.Lock()
	s.store = st // whoever still reads the old one has its files open
	s.storeMu.Unlock()
	s.damaged.Store(false)
	s.whole, s.tree = true, nil
	return aside, nil
}
