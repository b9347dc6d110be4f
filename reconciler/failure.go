package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Failure is what came of the latest action for a module, when it failed.
type Failure struct {
	Verb  string    // of the action
	Err   error     // why
	Count int       // failures in a row
	Retry time.Time // when it may be tried again
}

// failures are the actions that failed and have not succeeded since, by
// Action.subject.
type failures map[string]Failure

// record takes note of how a ended at now. It never gives up: the back-off is
// capped.
func (f failures) record(a Action, err error, now time.Time) {
	last := f[a.subject()]
	switch {
	case err != nil:
		wait := retryAfter(last.Count)
		if a.Verb == Restart && last.Count == 0 {
			wait = 0 // the container is made anew, which is another thing to try
		}
		f[a.subject()] = Failure{a.Verb, err, last.Count + 1, now.Add(wait)}
	case last.concerns(a) || a.Verb != Remove || last.Verb == Stop:
		delete(f, a.subject()) // a removal proves nothing about a start
	}
}

// removal says which container cannot be removed, as it seems, and why; empty
// when all can. It may be of a module that is not declared any more, and runs.
func (f failures) removal() string {
	for _, subject := range slices.Sorted(maps.Keys(f)) {
		if f[subject].stays() {
			return fmt.Sprintf("%s cannot be removed: %v", subject, f[subject].Err)
		}
	}
	return ""
}

// stays reports whether the failure is of a removal that is not to be expected to
// succeed soon.
func (f Failure) stays() bool { return f.Verb == Remove && f.Count >= removalAttempts }

// concerns reports whether the failure says something about a: a removal or a
// stop that failed does not delay a start, nor the other way round.
func (f Failure) concerns(a Action) bool {
	return f.Count > 0 && kind(f.Verb) == kind(a.Verb)
}

// kind is the verb, and the same for both that run a process.
func kind(verb string) string {
	if verb == Restart {
		return Start
	}
	return verb
}
