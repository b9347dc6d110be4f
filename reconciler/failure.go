package reconciler

import "time"

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
		f[a.subject()] = Failure{a.Verb, err, last.Count + 1, now.Add(retryAfter(last.Count))}
	case a.Verb != Remove || last.Verb == Remove:
		delete(f, a.subject()) // a removal proves nothing about a start
	}
}
