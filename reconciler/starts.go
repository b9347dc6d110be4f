package reconciler

import (
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// A trial begins again with each start of the agent. So a revision under which
// the machine or the agent dies before the gate has passed would be on trial for
// ever; after so many starts it has failed.
const (
	maxBoots  = 5  // of the machine
	maxStarts = 10 // of the agent, those with a boot included
)

// calmAfterStart is how long an agent waits for a newer commit before it acts for
// a revision that has failed so and is the device's first: there is none to go
// back to, and when it runs there may be no time to fetch its successor.
const calmAfterStart = time.Minute

// starts counts how often a trial began again.
type starts struct {
	Boot   string `json:"boot,omitempty"`   // of the machine, the latest one
	Boots  int    `json:"boots,omitempty"`  // of the machine since the trial began
	Agents int    `json:"agents,omitempty"` // starts of the agent since the trial began
}

// next counts a start of the agent. Where the boot is unknown it is no new one.
func (s starts) next(boot string) starts {
	s.Agents++
	if boot != "" && boot != s.Boot {
		s.Boot = boot
		s.Boots++
	}
	return s
}

// excess says what was started too often; empty when nothing was.
func (s starts) excess() string {
	switch {
	case s.Boots >= maxBoots:
		return fmt.Sprintf("the machine was started %d times before the gate had passed", s.Boots)
	case s.Agents >= maxStarts:
		return fmt.Sprintf("the agent was started %d times before the gate had passed", s.Agents)
	default:
		return ""
	}
}

// countStart counts that the trial under way begins again, on the disk before
// anything is done for it, and gives the revision up when that was too often.
func (r *Reconciler) countStart() {
	if !r.state.Trial {
		return
	}
	if r.state.Starts.excess() == "" {
		r.decide(func(s state) state { s.Starts = s.Starts.next(r.Boot); return s })
	}
	reason := r.state.Starts.excess()
	switch {
	case reason == "":
	case r.state.LastGood.Revision.IsZero():
		r.calm = time.Now().Add(calmAfterStart)
		r.note(troubleTrial, fmt.Errorf("revision %s: %s, and there is none to go back to", r.state.Target.Revision.Short(), reason))
	default:
		r.rollBack(schema.Refusal{Revision: r.state.Target.Revision, Phase: schema.PhaseGating, Reason: reason, At: time.Now().UTC()})
	}
}
