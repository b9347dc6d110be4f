package reconciler

import (
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// What can become of a state. Each of these is a decision: a value from a value.

// accepted reports whether the device has ever accepted a revision.
func (s *state) accepted() bool { return !s.Target.Revision.IsZero() }

// bad returns the reason why a commit is not tried again.
func (s *state) bad(commit string) (schema.Refusal, bool) {
	for _, b := range s.Bad {
		if b.Revision.Commit == commit {
			return b, true
		}
	}
	return schema.Refusal{}, false
}

// follows reports whether Git may make the commit the target: no order is in
// the way, and it is neither the target nor known as bad.
func (s *state) follows(commit string) bool {
	_, bad := s.bad(commit)
	return s.Order == nil && !bad && commit != "" && commit != s.Target.Revision.Commit
}

// returns reports whether a person wants the commit back.
func (s *state) returns(commit string) bool {
	return s.Return != nil && s.Return.Definition.Revision.Commit == commit
}

// takeOver makes desired the target, on trial since this boot.
func (s state) takeOver(desired schema.Desired, boot string) state {
	s.Refused = nil
	if s.returns(desired.Revision.Commit) {
		s.Refused = &s.Return.Left
	}
	s.Target, s.Trial, s.Starts, s.Return = desired, true, starts{Boot: boot}, nil
	s.Staging = staging{}
	return s
}

// keep makes the target last-good.
func (s state) keep() state {
	s.LastGood, s.Trial, s.Starts = s.Target, false, starts{}
	return s
}

// rollBack makes last-good the target and remembers why.
func (s state) rollBack(why schema.Refusal) state {
	s.Target, s.Trial, s.Starts, s.Refused = s.LastGood, false, starts{}, &why
	if s.returns(s.Target.Revision.Commit) {
		s.Return = nil
	}
	return s.mark(why)
}

// mark remembers a commit as bad.
func (s state) mark(why schema.Refusal) state {
	s = s.forgive(func(r schema.Refusal) bool { return r.Revision.Commit == why.Revision.Commit })
	s.Bad = append(s.Bad, why)
	s.Bad = s.Bad[max(0, len(s.Bad)-maxBad):]
	return s
}

// forgive forgets that commits are bad.
func (s state) forgive(which func(schema.Refusal) bool) state {
	s.Bad = slices.DeleteFunc(slices.Clone(s.Bad), which)
	return s
}

// suspend keeps the device from following Git. A hold stays one.
func (s state) suspend(by Request, at time.Time) state {
	order := schema.Order{Kind: schema.OrderSuspend}
	if s.Order != nil {
		order = *s.Order
	}
	order.By, order.Reason, order.At = by.By, by.Reason, at
	s.Order = &order
	return s
}

// resume takes every order back: the hold, a return that is not done yet, and
// that a revision was left by a person.
func (s state) resume() state {
	s.Order, s.Return = nil, nil
	if s.Refused != nil && s.Refused.By != "" {
		s.Refused = nil
	}
	return s.forgive(func(r schema.Refusal) bool { return r.By != "" })
}

// retry forgets what was found of the commit.
func (s state) retry(commit string) state {
	if s.Refused != nil && s.Refused.Revision.Commit == commit {
		s.Refused = nil
	}
	return s.forgive(func(r schema.Refusal) bool { return r.Revision.Commit == commit })
}

// comeBack has the device return to an earlier revision. What it leaves is not
// tried again: the target, and the newest commit where that is yet another one. A
// newest commit that was found bad before keeps the reason that was found.
func (s state) comeBack(to schema.Desired, newest schema.Revision, by Request, at time.Time) state {
	target := s.Target.Revision
	left := schema.Refusal{Revision: target, Phase: schema.PhaseRollingBack, Reason: by.Reason, By: by.By, At: at}
	if by.Hold || s.Order != nil && s.Order.Kind == schema.OrderHold {
		s.Order = &schema.Order{Kind: schema.OrderHold, Revision: to.Revision, By: by.By, Reason: by.Reason, At: at}
	}
	s.Return = nil
	if to.Revision.Commit == target.Commit {
		return s
	}
	s.Return = &comeback{to, left}
	for _, revision := range []schema.Revision{newest, target} {
		left.Revision = revision
		if _, bad := s.bad(revision.Commit); !revision.IsZero() && !bad {
			s = s.mark(left)
		}
	}
	return s.forgive(func(r schema.Refusal) bool { return r.Revision.Commit == to.Revision.Commit })
}
