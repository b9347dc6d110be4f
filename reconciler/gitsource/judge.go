package gitsource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/tidemark-edge/tidemark/schema"
)

// judge brings the tip into quarantine and decides whether it is acceptable.
func (s *Source) judge(ctx context.Context, conn remote, q *quarantine, tip plumbing.Hash) (schema.Revision, error) {
	base := s.state.id()
	req := request{want: tip, depth: 1}
	if !base.IsZero() {
		c, err := readCommit(s, base)
		if err != nil {
			return schema.Revision{}, &diskError{err}
		}
		q.history[base] = c
		if _, a := q.history.between(tip, base); a == older {
			return schema.Revision{}, s.refuse(nil, tip, s.notDescended(a))
		}
		req.depth, req.have = 2, base // one commit on top, by far the usual case, needs no second look
	}
	if err := q.bring(ctx, conn, req); err != nil {
		return schema.Revision{}, err
	}
	c := q.history[tip]
	if c == nil {
		return schema.Revision{}, &transferError{fmt.Errorf("commit %s was not sent", tip)}
	}
	line := []plumbing.Hash{tip}
	if !base.IsZero() {
		var err error
		if line, err = s.line(ctx, conn, q, tip, base); err != nil {
			return schema.Revision{}, err
		}
	}
	signer, err := s.verify(q.history, line, s.state.Revision.Time)
	if err != nil {
		return schema.Revision{}, s.refuse(q.history, tip, err)
	}
	if err := s.surveyTip(ctx, conn, q, tip, c); err != nil {
		return schema.Revision{}, s.refuseUnfit(q.history, tip, err)
	}
	return c.revision(tip, s.repo.Branch, signer), nil
}

// line finds the commits between base and tip, and looks as far back as needed.
func (s *Source) line(ctx context.Context, conn remote, q *quarantine, tip, base plumbing.Hash) ([]plumbing.Hash, error) {
	var line []plumbing.Hash
	var a ancestry
	err := q.deepen(ctx, conn, tip, base, func() bool {
		line, a = q.history.between(tip, base)
		return a != unknown
	})
	var bound *limitError
	switch {
	case errors.Is(err, errTooFar) || errors.As(err, &bound):
		return nil, s.refuse(q.history, tip, fmt.Errorf("branch %s cannot be shown to contain the accepted commit %s (%w): "+
			"move the branch in smaller steps; %s", s.repo.Branch, s.state.Revision.Short(), err, s.startOver()))
	case err != nil:
		return nil, err
	case a != descends:
		return nil, s.refuse(q.history, tip, s.notDescended(a))
	}
	return line, nil
}

// notDescended says what was done to the branch, and what a person can do.
func (s *Source) notDescended(a ancestry) error {
	base := s.state.Revision.Short()
	if a == older {
		return fmt.Errorf("branch %s was set back to an ancestor of the accepted commit %s: "+
			"to undo a change, push a commit that reverts it (git revert); %s", s.repo.Branch, base, s.startOver())
	}
	return fmt.Errorf("branch %s was rewritten and no longer contains the accepted commit %s: "+
		"push a branch that does (git merge %s); %s", s.repo.Branch, base, base, s.startOver())
}

func (s *Source) startOver() string {
	return "to make this device forget on purpose what it accepted, stop the agent and remove " + s.dir
}

// verify checks the signatures of commits, the oldest first, and returns who
// signed the newest. They descend from a commit made at since, zero where that
// is not known.
func (s *Source) verify(history graph, line []plumbing.Hash, since time.Time) (signer string, err error) {
	if s.commits == nil {
		return "", nil
	}
	for _, id := range slices.Backward(line) {
		c := history[id]
		if signer, err = s.verifyOne(c, since); err == nil {
			continue
		}
		where := "it is the newest commit of the branch"
		if id != line[0] {
			where = "it lies between the accepted commit and the newest one, so it must be signed as well"
		}
		return "", fmt.Errorf("commit %.12s %q by %s: %w (%s; "+
			"sign it with a key from allowedSigners, git commit --amend -S or git rebase -S, and push again)",
			id, c.subject, c.author, err, where)
	}
	return signer, nil
}

func (s *Source) verifyOne(c *commit, since time.Time) (string, error) {
	if v, ok := s.commits.(descendantVerifier); ok {
		return v.VerifyDescendant(c.raw, since)
	}
	return s.commits.VerifyCommit(c.raw)
}

// surveyTip walks the tree of the tip. Where the server left something out
// because we said that we have it, it is asked for everything.
func (s *Source) surveyTip(ctx context.Context, conn remote, q *quarantine, tip plumbing.Hash, c *commit) error {
	err := survey(q.objects(), c.tree, s.Limits)
	if err == nil || isUnfit(err) {
		return err
	}
	if err := q.bring(ctx, conn, request{want: tip, depth: 1}); err != nil {
		return err
	}
	err = survey(q.objects(), c.tree, s.Limits)
	if err == nil || isUnfit(err) {
		return err
	}
	return &transferError{err}
}

// isUnfit reports whether the commit itself is to blame.
func isUnfit(err error) bool {
	var bound *limitError
	var malformed *malformedError
	return errors.As(err, &bound) || errors.As(err, &malformed)
}

func (s *Source) refuseUnfit(history graph, tip plumbing.Hash, err error) error {
	if !isUnfit(err) {
		return err
	}
	return s.refuse(history, tip, fmt.Errorf("not fit for a device: %w; take it out of the repository and push again", err))
}

func (s *Source) refuse(history graph, tip plumbing.Hash, why error) error {
	revision := schema.Revision{Commit: tip.String(), Ref: s.repo.Branch}
	if c := history[tip]; c != nil {
		revision = c.revision(tip, s.repo.Branch, "")
	}
	return &schema.RefusedError{Revision: revision, Phase: schema.PhaseFetching, Err: why}
}

// verdict turns what went wrong with tip into one of the errors that Fetch
// promises, and remembers a refusal: the same tip is not fetched again.
func (s *Source) verdict(ctx context.Context, tip plumbing.Hash, err error) error {
	err = s.refuseUnfit(nil, tip, err)
	var refused *schema.RefusedError
	if errors.As(err, &refused) {
		s.refused = refused
		return refused
	}
	return s.unreachable(ctx, err)
}

// unreachable wraps what is the network's or the server's fault.
func (s *Source) unreachable(ctx context.Context, err error) error {
	var disk *diskError
	switch {
	case errors.Is(context.Cause(ctx), errStalled):
		err = fmt.Errorf("%w: less than %d bytes in %v", errStalled, stallBytes, s.Limits.Stall)
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("fetch %s: %w", s.repo.URL, ctx.Err())
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.As(err, &disk):
		return err
	}
	return &UnreachableError{URL: s.repo.URL, Err: err}
}

// diskError says that this device's disk is at fault.
type diskError struct{ err error }

func (e *diskError) Error() string { return "keep the clone: " + e.err.Error() }
func (e *diskError) Unwrap() error { return e.err }
