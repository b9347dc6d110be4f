package reconciler

import (
	"fmt"
	"strings"
	"time"
)

// Plan is what is missing from observed to desired, in the order in which it is
// to be done. It is empty when the device is as declared.
type Plan []Action

// Action is one step as data: the plan, the log and the report use its words.
type Action struct {
	Verb      string    `json:"verb"`                // Remove, Start, Restart, Stop or Wait
	Module    string    `json:"module,omitempty"`    // empty when the container is not ours
	Container string    `json:"container,omitempty"` // the runtime's id; empty when there is none yet
	Reason    string    `json:"reason"`              // why, for people
	Restarts  int       `json:"restarts,omitempty"`  // Restart: the count to record
	After     string    `json:"after,omitempty"`     // Remove: a module that depends on this one and goes before it
	Until     time.Time `json:"until,omitzero"`      // Wait: when it is due; zero when it waits for something other than time

	beside bool // the module runs, or is to run, as another container meanwhile
}

// What Action.Verb may say.
const (
	Remove  = "remove"  // end the container and delete it
	Start   = "start"   // make the module's container and run it
	Restart = "restart" // run the existing container again
	Stop    = "stop"    // end the container's process and keep the container, to be restarted
	Wait    = "wait"    // nothing can be done yet
)

// String is the action as one line: "restart sensor: exited with code 3".
func (a Action) String() string {
	subject := a.Module
	if subject == "" {
		subject = a.Container
	}
	return fmt.Sprintf("%-7s %s: %s", a.Verb, subject, a.Reason)
}

// String is one line for each action.
func (p Plan) String() string {
	var b strings.Builder
	for _, a := range p {
		b.WriteString(a.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// subject is what at most one action at a time is concerned with: the module,
// or the container where there is no module, or where the module goes on as
// another one.
func (a Action) subject() string {
	if a.Module == "" || a.beside {
		return containerPrefix + a.Container
	}
	return a.Module
}

// containerPrefix holds a blank, which no module's name does.
const containerPrefix = "container "

func isContainer(subject string) bool { return strings.HasPrefix(subject, containerPrefix) }

// wait is the action put off.
func (a Action) wait(reason string, until time.Time) Action {
	a.Verb, a.Reason, a.Until, a.Restarts, a.After = Wait, reason, until, 0, ""
	return a
}

// due is the earliest time at which a waiting action can go on; zero when none
// waits for time.
func (p Plan) due() time.Time {
	var due time.Time
	for _, a := range p {
		due = earlier(due, a.Until)
	}
	return due
}

// switches reports whether the plan still makes or deletes containers, rather
// than only keeping those that are there.
func (p Plan) switches() bool {
	for _, a := range p {
		if a.Verb == Start || a.Verb == Remove || a.Verb == Wait && (a.Container == "" || a.beside) {
			return true
		}
	}
	return false
}

// earlier is the earlier of two times; zero is no time.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
