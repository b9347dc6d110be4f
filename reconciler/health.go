package reconciler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// What a probe takes that its definition does not say, as it may come from an
// earlier release, and what is not the module's to answer for.
const (
	defaultInterval = 10 * time.Second
	probeGrace      = 30 * time.Second // for asking, apart from the answer
	probeSpread     = 2 * time.Second  // within which the first probes of many modules are made
	probeNews       = time.Minute      // between two lines in the log, or two reasons, while a module's health comes and goes
)

// The probes, in the order in which they decide.
const (
	startup   = "startup"
	liveness  = "liveness"
	readiness = "readiness"
)

// checkup asks one run of a container whether it works, until the run or the
// definition of its probes is another one. What it found before is lost with the
// agent: another agent's checkup begins with HealthStarting.
type checkup struct {
	container schema.Container // as it was when the checkup began
	probes    schema.Health
	end       context.CancelFunc

	// Guarded by Reconciler.mu.
	tallies map[string]tally
	state   string // one of the schema.Health constants
	reason  string
	since   time.Time // of state
	told    time.Time // when reason was taken
	logged  time.Time
}

// tally is what came of a probe so far.
type tally struct {
	passed bool  // it has succeeded at least once
	failed int   // failures in a row
	err    error // of the latest failure in that row
}

// count takes an answer into account. A question that did not reach the module
// says nothing, except why there is no answer yet.
func (t tally) count(err error) tally {
	switch {
	case err == nil:
		return tally{passed: true}
	case !errors.Is(err, schema.ErrNotAsked):
		return tally{t.passed, t.failed + 1, err}
	case !t.passed && t.failed == 0:
		t.err = err
	}
	return t
}

// health is what the probes say together.
func (c *checkup) health() (state, reason string) {
	state = schema.HealthHealthy
	for _, name := range []string{startup, liveness, readiness} {
		p := c.probe(name)
		if p == nil {
			continue
		}
		t := c.tallies[name]
		if t.failed >= max(1, p.Failures) {
			return failing[name], fmt.Sprintf("%s: %v", name, t.err)
		}
		if !t.passed && state == schema.HealthHealthy {
			state, reason = schema.HealthStarting, name+": no answer yet"
			if t.err != nil {
				reason = fmt.Sprintf("%s: %v", name, t.err)
			}
		}
	}
	return state, reason
}

// failing is what a module is while a probe keeps failing.
var failing = map[string]string{
	startup:   schema.HealthUnhealthy,
	liveness:  schema.HealthUnhealthy,
	readiness: schema.HealthUnready,
}

func (c *checkup) probe(name string) *schema.Probe {
	return map[string]*schema.Probe{startup: c.probes.Startup, liveness: c.probes.Liveness, readiness: c.probes.Readiness}[name]
}

// pace is the interval of the probe that is made first.
func (c *checkup) pace() time.Duration {
	for _, name := range []string{startup, liveness, readiness} {
		if p := c.probe(name); p != nil {
			return intervalOf(*p)
		}
	}
	return defaultInterval
}

// is reports whether the checkup is of this run, by these probes.
func (c *checkup) is(run schema.Container, probes schema.Health) bool {
	return c.container.PID == run.PID && c.container.Restarts == run.Restarts && c.probes.Equal(probes)
}

// examine has every run of the target's modules that has probes checked, and no
// other, and adds to what is observed what the probes say.
func (r *Reconciler) examine(ctx context.Context, observed schema.Observed, now time.Time) {
	kept := claim(r.catalogs.of(r.state.Target), observed)
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, c := range r.checkups {
		k := kept[c.container.Module]
		if k.container.ID != id || !k.running() || !c.is(k.container, k.Health) {
			c.end()
			delete(r.checkups, id)
		}
	}
	for _, k := range kept {
		if k.running() && !k.Health.IsZero() && r.checkups[k.container.ID] == nil {
			r.checkups[k.container.ID] = r.check(ctx, k, now)
		}
	}
	r.overlay(observed)
}

// overlay adds what the probes say to what is observed. The caller holds r.mu.
func (r *Reconciler) overlay(observed schema.Observed) {
	for i, o := range observed.Containers {
		c, ok := r.checkups[o.ID]
		if ok && o.State == schema.StateRunning && c.container.PID == o.PID && c.container.Restarts == o.Restarts {
			o.Health, o.HealthSince, o.HealthReason = c.state, c.since, c.reason
			observed.Containers[i] = o
		}
	}
}

// check begins the checkup of k's container.
func (r *Reconciler) check(ctx context.Context, k claimed, now time.Time) *checkup {
	ctx, end := context.WithCancel(ctx)
	c := &checkup{container: k.container, probes: k.Health, end: end, tallies: map[string]tally{}, since: now}
	c.state, c.reason = c.health()
	r.work.Go(func() { r.attend(ctx, c) })
	return c
}

// attend makes the startup probe until it succeeds, and then the others side by
// side, until ctx ends.
func (r *Reconciler) attend(ctx context.Context, c *checkup) {
	pause(ctx, rand.N(min(probeSpread, c.pace())), nil)
	if p := c.probes.Startup; p != nil {
		r.ask(ctx, c, startup, *p)
	}
	var both sync.WaitGroup
	for _, name := range []string{liveness, readiness} {
		if p := c.probe(name); p != nil {
			both.Go(func() { r.ask(ctx, c, name, *p) })
		}
	}
	both.Wait()
}

// ask makes one probe at its interval until ctx ends, or it succeeded if it is
// the startup probe.
func (r *Reconciler) ask(ctx context.Context, c *checkup, name string, p schema.Probe) {
	var asked <-chan error // a question that is not answered yet
	for ctx.Err() == nil {
		began := time.Now()
		late := asked != nil
		if !late {
			asked = r.question(ctx, c.container, p)
		}
		err := errHangs
		select {
		case err = <-asked:
			asked = nil
			if late {
				continue // with a new question; this one was answered for
			}
		case <-time.After(timeoutOf(p) + 2*probeGrace):
		case <-ctx.Done():
			return
		}
		r.answer(ctx, c, name, err)
		if err == nil && name == startup {
			return
		}
		pause(ctx, time.Until(began.Add(jitter(intervalOf(p)))), nil)
	}
}

var (
	errHangs    = fmt.Errorf("%w: who should ask does not come back", schema.ErrNotAsked)
	errNoProber = fmt.Errorf("%w: this agent makes no probes", schema.ErrNotAsked)
)

func intervalOf(p schema.Probe) time.Duration {
	return cmp.Or(time.Duration(p.Interval), defaultInterval)
}

func timeoutOf(p schema.Probe) time.Duration { return cmp.Or(time.Duration(p.Timeout), time.Second) }

// question asks once. A prober that does not heed its context delays nobody:
// only the answer is waited for, and no second question is asked before.
func (r *Reconciler) question(ctx context.Context, c schema.Container, p schema.Probe) <-chan error {
	answer := make(chan error, 1)
	if r.Prober == nil {
		answer <- errNoProber
		return answer
	}
	go func() {
		ctx, cancel := context.WithTimeout(ctx, timeoutOf(p)+probeGrace)
		defer cancel()
		answer <- r.Prober.Probe(ctx, c, p)
	}()
	return answer
}

// answer takes down what a probe said, and calls for a pass when the module's
// health is another one now.
func (r *Reconciler) answer(ctx context.Context, c *checkup, name string, err error) {
	now := time.Now()
	r.mu.Lock()
	if ctx.Err() != nil { // another checkup has begun
		r.mu.Unlock()
		return
	}
	c.tallies[name] = c.tallies[name].count(err)
	was := c.state
	state, reason := c.health()
	changed := state != was
	// A reason that is another one each time is not worth a report each time.
	if changed || reason != c.reason && (c.told.IsZero() || now.Sub(c.told) >= probeNews) {
		c.state, c.reason, c.told = state, reason, now
		r.look.now()
	}
	if changed {
		c.since = now
	}
	tell := changed && now.Sub(c.logged) >= probeNews
	if tell {
		c.logged = now
	}
	r.mu.Unlock()
	if tell {
		r.Log.Info("health", "module", c.container.Module, "container", c.container.ID, "health", state, "was", was, "reason", reason)
	}
}
