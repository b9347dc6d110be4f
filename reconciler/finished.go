package reconciler

import (
	"maps"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// finished are the ends of containers that are not to run again, by their id.
// What a runtime knows of an end is in memory: after a boot it shows a container
// without a process, as one that was cut off in its work. A job that is done, a
// migration say, would be done again with each boot.
type finished map[string]end

// end is how a container ended, in the runtime's words.
type end struct {
	ExitCode  int       `json:"exitCode,omitempty"`
	OOMKilled bool      `json:"oomKilled,omitempty"`
	Ended     string    `json:"ended,omitempty"`
	ExitedAt  time.Time `json:"exitedAt,omitzero"`
}

// recall returns observed with the ends that are remembered of containers without
// a process, where desired lets them rest.
func (f finished) recall(desired schema.Desired, observed schema.Observed) schema.Observed {
	if len(f) == 0 {
		return observed
	}
	recalled := schema.Observed{Containers: slices.Clone(observed.Containers)}
	for i, c := range recalled.Containers {
		is, known := f[c.ID]
		if c.State != schema.StateCreated || !known {
			continue
		}
		c.State, c.ExitCode, c.OOMKilled, c.Ended, c.ExitedAt = schema.StateExited, is.ExitCode, is.OOMKilled, is.Ended, is.ExitedAt
		if m, ok := desired.Module(c.Module); ok && !restarts(m, c) {
			recalled.Containers[i] = c
		}
	}
	return recalled
}

// after is what is to be remembered when observed, with what was recalled, was
// seen: a container that runs again has not ended, and one that is gone is made anew.
func (f finished) after(desired schema.Desired, observed schema.Observed) finished {
	next := finished{}
	for _, c := range observed.Containers {
		if m, ok := desired.Module(c.Module); ok && c.State == schema.StateExited && !restarts(m, c) {
			next[c.ID] = end{c.ExitCode, c.OOMKilled, c.Ended, c.ExitedAt}
		}
	}
	return next
}

// recall lays over what is observed which containers are done, and remembers it.
func (r *Reconciler) recall(observed schema.Observed) schema.Observed {
	r.mu.Lock()
	target, known := r.state.Target, r.state.Finished
	r.mu.Unlock()
	observed = known.recall(target, observed)
	if next := known.after(target, observed); !maps.Equal(next, known) {
		r.decide(func(s state) state {
			s.Finished = next
			return s
		})
	}
	return observed
}
