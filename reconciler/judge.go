package reconciler

import (
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// Verdict is what is known of a revision on trial.
type Verdict struct {
	State   string      // Healthy, Waiting or Failed: the worst of its modules'
	Modules []Judgement // of each module that the revision changes, by name
	Until   time.Time   // Waiting: when the verdict can change by time alone; zero when time does not help
}

// Judgement is the verdict on one module.
type Judgement struct {
	Module string
	State  string // Healthy, Waiting or Failed
	Reason string // why it is not Healthy
}

// What Verdict.State and Judgement.State may say.
const (
	Healthy = "healthy"
	Waiting = "waiting"
	Failed  = "failed"
)

// StartAttempts is how often a module may fail to start before the trial of its
// revision fails: more than once, because the reason may be the runtime's.
const StartAttempts = 3

// Judge says whether desired, which replaced lastGood, holds.
//
// On trial is each module that desired changes: one that shall run and did not
// in lastGood, or not from the same definition. It is
//
//   - healthy when it has run for desired.Gate without an exit, or when its work
//     is done: it exited with 0 and its policy lets it rest;
//   - failed when it exited otherwise, or cannot be started (failures);
//   - waiting until then.
//
// A module that failed stays so until it has run for the whole gate, which only
// matters where there is no last-good to return to. Modules that the revision
// does not change say nothing about it. Times are as in Diff.
func Judge(desired, lastGood schema.Desired, observed schema.Observed, failures map[string]Failure, now time.Time) Verdict {
	verdict := Verdict{State: Healthy}
	kept := claim(desired, observed)
	for _, m := range desired.Modules {
		k, wanted := kept[m.Name]
		if !wanted || !changed(m.Name, k.hash, lastGood) {
			continue
		}
		j, until := judge(k.container, m, failures[m.Name], time.Duration(desired.Gate), now)
		verdict.Modules = append(verdict.Modules, j)
		verdict.Until = earlier(verdict.Until, until)
		if verdict.State == Healthy || j.State == Failed {
			verdict.State = j.State
		}
	}
	return verdict
}

// Worst is the judgement that decides the verdict; zero when it is Healthy.
func (v Verdict) Worst() Judgement {
	for _, j := range v.Modules {
		if j.State == v.State && v.State != Healthy {
			return j
		}
	}
	return Judgement{}
}

// String is the verdict in a line: "failed: sensor exited with code 3".
func (v Verdict) String() string {
	if worst := v.Worst(); worst.Module != "" {
		return v.State + ": " + worst.String()
	}
	return v.State
}

// String is the judgement as a sentence: "sensor exited with code 3".
func (j Judgement) String() string { return j.Module + " " + j.Reason }

// changed reports whether lastGood does not run the module from the definition
// with this hash.
func changed(module, hash string, lastGood schema.Desired) bool {
	m, ok := lastGood.Module(module)
	return !ok || m.Status == schema.StatusStopped || m.Hash() != hash
}

func judge(c schema.Container, m schema.Module, failure Failure, gate time.Duration, now time.Time) (j Judgement, until time.Time) {
	passed := c.StartedAt.Add(gate)
	j = Judgement{Module: m.Name, State: Waiting}
	switch {
	case failure.Count >= StartAttempts:
		j.State, j.Reason = Failed, fmt.Sprintf("cannot be started: %v", failure.Err)
	case c.ID == "" || c.State == schema.StateCreated:
		j.Reason = "is not started yet"
	case c.State == schema.StateExited && c.ExitCode == 0 && !c.OOMKilled && !restarts(m, c):
		j.State = Healthy
	case c.State == schema.StateExited:
		j.State, j.Reason = Failed, ending(c)
	case !now.Before(passed):
		j.State = Healthy
	case c.Restarts > 0:
		j.State, j.Reason, until = Failed, "was restarted during its gate", passed
	default:
		j.Reason, until = fmt.Sprintf("runs, on trial for %v", gate), passed
	}
	return j, until
}
