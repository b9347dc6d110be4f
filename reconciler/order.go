package reconciler

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tidemark-edge/tidemark/schema"
)

// Request is what a person asks for: an order. It is on the disk before its
// method returns, and in the history.
type Request struct {
	By     string `json:"by"`               // who, as they say; required
	Reason string `json:"reason,omitempty"` // why; required of Suspend and Rollback
	To     string `json:"to,omitempty"`     // Rollback: the revision, or how its commit begins; empty is the newest good one before the target
	Hold   bool   `json:"hold,omitempty"`   // Rollback: and take over nothing newer until resumed
}

// Bounds of what a person says, in bytes.
const (
	maxBy     = 256
	maxReason = 1 << 10
	minPrefix = 4 // digits of a commit
)

// Rollback is what came of a request to roll back.
type Rollback struct {
	From schema.Revision `json:"from"` // the target, which is left
	To   schema.Revision `json:"to"`   // what is staged now
	Hold bool            `json:"hold"` // nothing newer is taken over until resumed
}

// Reconcile has the device look at the fleet repository at once, and try again
// what it waits to try again. Of one person who asks again and again the history
// has the first time: it is bounded, and what else happened says more.
func (r *Reconciler) Reconcile(q Request) error {
	if err := q.Check(false); err != nil {
		return fmt.Errorf("reconcile: %w", err)
	}
	r.deciding.Lock()
	starting := r.events == nil
	r.deciding.Unlock()
	if starting {
		return fmt.Errorf("reconcile: %w", errStarting)
	}
	events := r.History()
	if n := len(events); n == 0 || events[n-1].Kind != schema.EventReconcile || events[n-1].By != q.By {
		r.record(schema.Event{At: time.Now().UTC(), Kind: schema.EventReconcile, Revision: r.Report().Revision, By: q.By, Reason: q.Reason})
	}
	r.Moved()
	return nil
}

// Suspend has the device take over nothing newer than what runs, until Resume. A
// trial under way goes on to its end. The newest commit is still asked for and
// shown. Of a device that is suspended it changes who and why.
func (r *Reconciler) Suspend(q Request) (schema.Order, error) {
	if err := q.Check(true); err != nil {
		return schema.Order{}, fmt.Errorf("suspend: %w", err)
	}
	at := time.Now().UTC()
	s, err := r.instruct(func(s state) (state, error) { return s.suspend(q, at), nil })
	if err != nil {
		return schema.Order{}, fmt.Errorf("suspend: %w", err)
	}
	r.record(schema.Event{At: at, Kind: schema.EventSuspend, Revision: s.Target.Revision, By: q.By, Reason: q.Reason})
	return *s.Order, nil
}

// Resume has the device follow Git again: it ends a suspension and a hold, and
// what Rollback left may be taken over again. It returns the order that it
// ended, nil where there was none.
func (r *Reconciler) Resume(q Request) (*schema.Order, error) {
	if err := q.Check(false); err != nil {
		return nil, fmt.Errorf("resume: %w", err)
	}
	var was state
	s, err := r.instruct(func(s state) (state, error) { was = s; return s.resume(), nil })
	if err != nil {
		return nil, fmt.Errorf("resume: %w", err)
	}
	if was.Order != nil || was.Return != nil || len(was.Bad) != len(s.Bad) {
		r.record(schema.Event{At: time.Now().UTC(), Kind: schema.EventResume, Revision: s.Target.Revision, By: q.By, Reason: q.Reason})
	}
	r.Moved()
	return was.Order, nil
}

// Retry has the newest commit tried again at once, whatever was found of it: the
// same commit may succeed where what it needs is there now. It returns the
// commit; none where the newest one runs, and then the repository is asked.
func (r *Reconciler) Retry(q Request) (schema.Revision, error) {
	if err := q.Check(false); err != nil {
		return schema.Revision{}, fmt.Errorf("retry: %w", err)
	}
	var again schema.Revision
	_, err := r.instruct(func(s state) (state, error) {
		if s.Order != nil {
			return s, fmt.Errorf("resume it first: the device is %s", orderLine(*s.Order))
		}
		if again = r.retryable(s); again.IsZero() {
			return s, nil
		}
		return s.retry(again.Commit), nil
	})
	if err != nil {
		return schema.Revision{}, fmt.Errorf("retry: %w", err)
	}
	if !again.IsZero() {
		r.record(schema.Event{At: time.Now().UTC(), Kind: schema.EventRetry, Revision: again, By: q.By, Reason: q.Reason})
	}
	r.change(func() { r.attempt++; r.failures = failures{} })
	r.aimed.now()
	r.Moved()
	return again, nil
}

// retryable is the newest commit, when it does not run.
func (r *Reconciler) retryable(s state) schema.Revision {
	r.mu.Lock()
	defer r.mu.Unlock()
	newest := r.newest.revision
	switch {
	case newest.IsZero() && s.Refused != nil:
		return s.Refused.Revision
	case newest.Commit == s.Target.Revision.Commit:
		return schema.Revision{}
	default:
		return newest
	}
}

// Rollback has the device return to an earlier good revision. It is staged like
// any other: verified, brought to the disk where it is not there, and gated. The
// revision that is left is not taken over again until Retry, Resume, or never: a
// newer commit takes its place.
func (r *Reconciler) Rollback(q Request) (Rollback, error) {
	if err := q.Check(true); err != nil {
		return Rollback{}, fmt.Errorf("roll back: %w", err)
	}
	at := time.Now().UTC()
	var from, to schema.Revision
	s, err := r.instruct(func(s state) (state, error) {
		earlier, err := r.find(s, q)
		if err != nil {
			return s, err
		}
		r.mu.Lock()
		newest := r.newest.revision
		r.mu.Unlock()
		from, to = s.Target.Revision, earlier.Revision
		return s.comeBack(earlier, newest, q, at), nil
	})
	if err != nil {
		return Rollback{}, fmt.Errorf("roll back: %w", err)
	}
	if from.Commit != to.Commit {
		r.record(schema.Event{At: at, Kind: schema.EventRolledBack, Revision: from, By: q.By, Reason: q.Reason})
	}
	held := s.Order != nil && s.Order.Kind == schema.OrderHold
	if held {
		r.record(schema.Event{At: at, Kind: schema.EventHold, Revision: to, By: q.By, Reason: q.Reason})
	}
	return Rollback{From: from, To: to, Hold: held}, nil
}

// History is what happened to revisions, oldest first.
func (r *Reconciler) History() []schema.Event {
	r.deciding.Lock()
	events := r.events
	r.deciding.Unlock()
	if events == nil {
		return nil // the agent is starting
	}
	return events.Events()
}

// find is the definition of the revision that a request to roll back means.
func (r *Reconciler) find(s state, q Request) (schema.Desired, error) {
	if !s.accepted() {
		return schema.Desired{}, errors.New("this device has not run a revision yet")
	}
	good := r.good(s)
	var found []schema.Revision
	for _, revision := range good {
		_, bad := s.bad(revision.Commit)
		isTarget := revision.Commit == s.Target.Revision.Commit
		switch {
		case q.To == "" && (bad || isTarget):
		case q.To == "":
			return r.definition(s, revision)
		case strings.HasPrefix(revision.Commit, q.To):
			found = append(found, revision)
		}
	}
	switch {
	case q.To == "":
		return schema.Desired{}, fmt.Errorf("there is no good revision before %s that this device still knows", s.Target.Revision.Short())
	case len(found) == 0:
		return schema.Desired{}, fmt.Errorf("%q is not the beginning of a revision whose definition this device keeps; it keeps %s", q.To, list(good))
	case len(found) > 1:
		return schema.Desired{}, fmt.Errorf("%q is the beginning of more than one revision: %s", q.To, list(found))
	case found[0].Commit == s.Target.Revision.Commit && !q.Hold:
		return schema.Desired{}, fmt.Errorf("%s is what runs; to keep it, use --hold", found[0].Short())
	}
	return r.definition(s, found[0])
}

// good lists the revisions that passed their gate and whose definitions are
// known, newest first, and the target.
func (r *Reconciler) good(s state) []schema.Revision {
	all := append([]schema.Revision{s.Target.Revision, s.LastGood.Revision}, r.revisions.List()...)
	var good []schema.Revision
	for _, revision := range all {
		known := slices.ContainsFunc(good, func(g schema.Revision) bool { return g.Commit == revision.Commit })
		if !known && !revision.IsZero() {
			good = append(good, revision)
		}
	}
	return good
}

func (r *Reconciler) definition(s state, revision schema.Revision) (schema.Desired, error) {
	switch revision.Commit {
	case s.Target.Revision.Commit:
		return s.Target, nil
	case s.LastGood.Revision.Commit:
		return s.LastGood, nil
	}
	return r.revisions.Load(revision.Commit)
}

// errStarting says that the agent does not know its state yet.
var errStarting = errors.New("the agent is starting: try again")

// instruct changes the state by a person's order, and has deployment obey. The
// order is on the disk when it returns nil.
func (r *Reconciler) instruct(change func(state) (state, error)) (state, error) {
	r.deciding.Lock()
	defer r.deciding.Unlock()
	if r.revisions == nil {
		return state{}, errStarting
	}
	s, err := change(r.state)
	if err != nil {
		return state{}, err
	}
	if err := s.save(r.StateDir); err != nil {
		return state{}, err
	}
	r.change(func() {
		// Not the target: supervision alone writes that.
		r.state.Refused, r.state.Bad, r.state.Order, r.state.Return = s.Refused, s.Bad, s.Order, s.Return
		r.refused, r.unsaved, r.setback = s.Refused, false, ""
		r.review()
	})
	r.aimed.now()
	return s, nil
}

// Check refuses what cannot be recorded, or means no revision; why says whether
// a reason is required.
func (q Request) Check(why bool) error {
	switch {
	case strings.TrimSpace(q.By) == "":
		return errors.New("say who orders it")
	case why && strings.TrimSpace(q.Reason) == "":
		return errors.New("say why, for those who come after")
	case len(q.By) > maxBy:
		return fmt.Errorf("the name has %d bytes, more than %d", len(q.By), maxBy)
	case len(q.Reason) > maxReason:
		return fmt.Errorf("the reason has %d bytes, more than %d", len(q.Reason), maxReason)
	case !printable(q.By) || !printable(q.Reason):
		return errors.New("name and reason are one line of text each")
	case q.To != "" && (len(q.To) < minPrefix || len(q.To) > 64 || strings.Trim(q.To, "0123456789abcdef") != ""):
		return fmt.Errorf("revision %.64q: want at least the first %d digits of a commit, of 0-9 and a-f", q.To, minPrefix)
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// list names revisions for a person.
func list(revisions []schema.Revision) string {
	lines := make([]string, len(revisions))
	for i, r := range revisions {
		lines[i] = strings.TrimSpace(r.Short() + " " + r.Subject)
	}
	return cmp.Or(strings.Join(lines, ", "), "none")
}

// orderLine says an order in a few words: "suspended by anna: fair".
func orderLine(o schema.Order) string {
	line := "suspended"
	if o.Kind == schema.OrderHold {
		line = "held at " + o.Revision.Short()
	}
	line += " by " + o.By
	if o.Reason != "" {
		line += ": " + o.Reason
	}
	return line
}
