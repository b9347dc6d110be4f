package reconciler

import (
	"sync"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// outputLines is how much of what a module printed is shown with the reason why
// it failed.
const outputLines = 10

// tails are how modules ended, and the last lines that they printed before they
// did or became unhealthy, by container. They are taken once for each such end: what a module
// prints after its restart says less.
type tails struct {
	mu sync.Mutex
	of map[string]tail
}

// tail is the last lines of one run.
type tail struct {
	module string
	state  string    // schema.StateExited, schema.HealthUnhealthy or schema.HealthUnready
	at     time.Time // since when it is so
	lines  string
	ended  schema.Container // as it was when it ended last; zero when that was not seen
}

// take takes what is new in a look at all containers, and forgets those that are
// gone.
func (t *tails) take(observed schema.Observed, from Output) {
	if from == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.of
	t.of = make(map[string]tail, len(known))
	for _, c := range observed.Containers {
		was, is := known[c.ID], endOf(c)
		if !is.at.IsZero() && (is.state != was.state || !is.at.Equal(was.at)) {
			is.lines = from.Tail(c.Module, outputLines)
			if is.state != schema.StateExited {
				is.ended = was.ended
			}
			was = is
		}
		if was.module != "" {
			t.of[c.ID] = was
		}
	}
}

// endOf is how a container ended, or ails; the zero tail when it does neither.
func endOf(c schema.Container) tail {
	switch {
	case c.Module == "":
		return tail{}
	case c.State == schema.StateExited || c.State == schema.StateCreated:
		return tail{module: c.Module, state: schema.StateExited, at: c.ExitedAt, ended: c}
	case c.Health == schema.HealthUnhealthy || c.Health == schema.HealthUnready:
		return tail{module: c.Module, state: c.Health, at: c.HealthSince}
	default:
		return tail{}
	}
}

// last is the latest tail of a module.
func (t *tails) last(module string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var last tail
	for _, is := range t.of {
		if is.module == module && (last.module == "" || is.at.After(last.at)) {
			last = is
		}
	}
	return last.lines
}

// end is how the run before this one of a container ended; false when that was
// not seen.
func (t *tails) end(container string) (schema.Container, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.of[container].ended
	return c, c.ID != ""
}

// lastOutput is what a module printed last before it ended or became unhealthy;
// empty when it did neither since the agent started, and its container is there.
func (r *Reconciler) lastOutput(module string) string { return r.tails.last(module) }

// saidLast is lastOutput, or what the module has printed by now where that is
// nothing: one that never became healthy may have said why.
func (r *Reconciler) saidLast(module string) string {
	if last := r.lastOutput(module); last != "" || r.Output == nil {
		return last
	}
	return r.Output.Tail(module, outputLines)
}
