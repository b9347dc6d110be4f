package reconciler

import (
	"maps"
	"time"
)

// gaps measure for how long modules are down because they are replaced.
type gaps map[string]gap

// gap is the time in which a module had no process.
type gap struct {
	since time.Time     // since when it has none; zero when it has one
	took  time.Duration // what the replacement before took
}

// begin takes down that a container goes: its process ended when it was seen to,
// or else when it is asked to. A module that goes on as another container has no
// gap.
func (g gaps) begin(a Action, was sight, now time.Time) {
	if a.Verb != Remove || a.Module == "" || a.beside {
		return
	}
	if is := g[a.Module]; is.since.IsZero() {
		is.since = now
		if !was.exited.IsZero() {
			is.since = was.exited
		}
		g[a.Module] = is
	}
}

// end takes down that a module has a process again.
func (g gaps) end(a Action, now time.Time) {
	is, known := g[a.Module]
	switch {
	case a.Verb != Start || !known:
	case is.since.IsZero():
		delete(g, a.Module) // it went on meanwhile
	default:
		g[a.Module] = gap{took: now.Sub(is.since)}
	}
}

// forget drops what is known of modules that are not wanted any more: the time in
// which a module was not declared is not downtime.
func (g gaps) forget(wanted *catalog) {
	maps.DeleteFunc(g, func(module string, _ gap) bool { return wanted.byName[module] == nil })
}

// downtime is for how long a module had no process when it was replaced last, by
// the monotonic clock; 0 when it was never, or went on meanwhile. The caller
// holds r.mu.
func (r *Reconciler) downtime(module string) time.Duration { return r.gaps[module].took }
