package reconciler

import (
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// Trial is a revision that has to prove itself, and what is known of it.
type Trial struct {
	Desired  schema.Desired
	LastGood schema.Desired     // what it replaced; zero where there is none
	Failures map[string]Failure // of actions, by module
	Since    time.Time          // when it began, by the clock that now is of
}

// Verdict is what is known of a revision on trial.
type Verdict struct {
	State   string      // Healthy, Waiting or Failed: the worst of its modules'
	Modules []Judgement // of each module that the revision changes, by name
	Until   time.Time   // when the verdict can change by time alone; zero when time does not help
}

// Judgement is the verdict on one module.
type Judgement struct {
	Module  string
	State   string // Healthy, Waiting or Failed
	Reason  string // why it is not Healthy
	Blocked bool   // it waits for a module that it depends on, so the cause is elsewhere
}

// What Verdict.State and Judgement.State may say.
const (
	Healthy = "healthy"
	Waiting = "waiting"
	Failed  = "failed"
)

const (
	// StartAttempts is how often a module may fail to start before the trial of
	// its revision fails: more than once, because the reason may be the runtime's.
	StartAttempts = 3

	// DefaultDeadline is that of a definition that says none, as those of earlier
	// releases.
	DefaultDeadline = 10 * time.Minute
)

// Judge says whether a revision holds.
//
// On trial is each module that it changes: one that shall run and did not in
// LastGood, or not from the same definition or with the same probes. It is
//
//   - healthy when it has run for Desired.Gate, healthy by all of its probes and
//     without an exit, or when its work is done: it exited with 0 and its policy
//     lets it rest;
//   - failed when it exited otherwise, is unhealthy, cannot be started, or is not
//     healthy when Desired.Deadline has passed since the trial began, the time
//     included that the container took to end that it replaces;
//   - waiting until then.
//
// A module that failed stays so until it has been healthy for the whole gate,
// which only matters where there is no last-good to return to. Modules that the
// revision does not change say nothing about it. Times are as in Diff; an exit
// whose time is zero was before the trial.
func Judge(trial Trial, observed schema.Observed, now time.Time) Verdict {
	return trial.judge(newCatalog(trial.Desired.Modules), newCatalog(trial.LastGood.Modules), observed, now)
}

// judge is Judge.
func (t Trial) judge(desired, lastGood *catalog, observed schema.Observed, now time.Time) Verdict {
	verdict := Verdict{State: Healthy}
	bench := bench{diff{desired: t.Desired, now: now, kept: claim(desired, observed)}, t, map[string]bool{}}
	for _, c := range observed.Containers {
		if c.ID != bench.kept[c.Module].container.ID {
			bench.others[c.Module] = true
		}
	}
	for _, m := range desired.modules {
		k, wanted := bench.kept[m.Name]
		if !wanted || !changed(k.entry, lastGood) {
			continue
		}
		j, until := bench.judge(k)
		verdict.Modules = append(verdict.Modules, j)
		verdict.Until = earlier(verdict.Until, until)
		if verdict.State == Healthy || j.State == Failed {
			verdict.State = j.State
		}
	}
	return verdict
}

// Worst is the judgement that decides the verdict, one on the cause where that
// is known; zero when the verdict is Healthy.
func (v Verdict) Worst() Judgement {
	var worst Judgement
	for _, j := range v.Modules {
		if j.State == v.State && v.State != Healthy && (worst.Module == "" || worst.Blocked && !j.Blocked) {
			worst = j
		}
	}
	return worst
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

// changed reports whether lastGood does not run the module from the same
// definition with the same probes.
func changed(m *entry, lastGood *catalog) bool {
	was, ran := lastGood.runs(m.Name)
	return !ran || was.hash != m.hash || !was.Health.Equal(m.Health)
}

// bench is where one trial is judged.
type bench struct {
	diff
	trial  Trial
	others map[string]bool // modules that have a container that is to go
}

func (b bench) judge(k claimed) (j Judgement, until time.Time) {
	j = Judgement{Module: k.Name, State: Waiting}
	failure := b.trial.Failures[k.Name]
	switch {
	case failure.Count >= StartAttempts && failure.Verb != Stop:
		j.State, j.Reason = Failed, fmt.Sprintf("cannot be started: %v", failure.Err)
	case k.done():
		j.State = Healthy
	case b.ended(k):
		j.State, j.Reason = Failed, ending(k.container)
	case k.running() && k.container.Health == schema.HealthUnhealthy:
		j.State, j.Reason = Failed, k.ailing()
	case k.healthy():
		return b.gate(j, k)
	default:
		return b.delay(j, k, failure)
	}
	return j, until
}

// ended reports whether k ended in this trial.
func (b bench) ended(k claimed) bool {
	c := k.container
	switch c.State {
	case schema.StateCreated:
		return !c.ExitedAt.IsZero()
	case schema.StateExited:
		return !c.ExitedAt.IsZero() || !restarts(k.Module, c)
	default:
		return false
	}
}

// gate is the judgement on a module that is healthy now.
func (b bench) gate(j Judgement, k claimed) (Judgement, time.Time) {
	since := k.container.StartedAt
	if !k.Health.IsZero() && k.container.HealthSince.After(since) {
		since = k.container.HealthSince
	}
	passed := since.Add(time.Duration(b.desired.Gate))
	switch {
	case !b.now.Before(passed):
		j.State = Healthy
		return j, time.Time{}
	case k.container.Restarts > 0:
		j.State, j.Reason = Failed, "was restarted during its gate"
	case since.After(b.end()):
		j.State, j.Reason = Failed, fmt.Sprintf("was not healthy within %v", b.deadline())
	default:
		j.Reason = fmt.Sprintf("runs, on trial for %v", time.Duration(b.desired.Gate))
	}
	return j, passed
}

// delay is the judgement on a module that is not healthy yet.
func (b bench) delay(j Judgement, k claimed, failure Failure) (Judgement, time.Time) {
	obstacle, _ := b.obstacle(k.Module)
	switch {
	case k.running() && k.container.Restarts > 0:
		j.State, j.Reason = Failed, "was restarted during its gate"
		return j, time.Time{}
	case k.running():
		j.Reason = k.ailing()
	case k.container.State == schema.StatePaused:
		j.Reason = "is paused"
	case failure.Count > 0:
		j.Reason = fmt.Sprintf("is not started yet: %s: %v", failure.Verb, failure.Err)
	case obstacle != "":
		j.Reason, j.Blocked = obstacle, true
	case b.others[k.Name] && k.container.ID == "":
		j.Reason = "is not started yet: the container that it replaces is still there"
	default:
		j.Reason = "is not started yet"
	}
	if b.now.Before(b.end()) {
		return j, b.end()
	}
	j.State, j.Reason = Failed, fmt.Sprintf("was not healthy within %v: %s", b.deadline(), j.Reason)
	return j, time.Time{}
}

// deadline is how long modules may take until they are healthy.
func (b bench) deadline() time.Duration { return deadlineOf(b.desired) }

func deadlineOf(d schema.Desired) time.Duration {
	if d.Deadline > 0 {
		return time.Duration(d.Deadline)
	}
	return DefaultDeadline
}

// end is when the deadline passes.
func (b bench) end() time.Time { return b.trial.Since.Add(b.deadline()) }
