package reconciler

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// What the report's rhythm is. Many changes in a row, as in a boot, make one
// report; one that could not be handed over is handed over later.
const (
	reportSpacing = 250 * time.Millisecond
	reportAgain   = 10 * time.Second
)

// Report is what the agent says of the device now. Any goroutine may call it at
// any time.
func (r *Reconciler) Report() schema.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	report := schema.Report{
		Agent:    r.Agent,
		Phase:    r.phaseNow(),
		Revision: r.state.Target.Revision,
		LastGood: r.state.LastGood.Revision,
		Refused:  r.shown(),
		Order:    r.state.Order,
	}
	if newest := r.newest.revision; newest.Commit != r.state.Target.Revision.Commit {
		report.Newest = newest
	}
	if len(r.state.Target.Modules) > 0 {
		report.Modules = r.modules()
	}
	report.LastDesiredStatus = r.status(report.Modules)
	return report
}

// reporting hands the report over when it differs from the one before, and only
// then: if handing it over leads to a kick, that is the end of it
// (kubeedge#6269). A reporter that is slow delays nothing but reports.
func (r *Reconciler) reporting(ctx context.Context) {
	var last []byte
	for ctx.Err() == nil {
		pause(ctx, forever, &r.changed)
		report := r.Report()
		b, err := json.Marshal(report)
		if err == nil && bytes.Equal(b, last) || ctx.Err() != nil {
			continue
		}
		if err == nil {
			err = r.Reporter.Report(ctx, report)
		}
		if ctx.Err() != nil {
			return
		}
		r.note(troubleReport, err)
		if err == nil {
			last = b
			pause(ctx, reportSpacing, nil)
		} else {
			pause(ctx, reportAgain, nil)
			r.changed.now()
		}
	}
}

// status is the outcome of the newest definition that the device saw, in the
// order of what a person must know first. The caller holds r.mu.
func (r *Reconciler) status(modules map[string]schema.ModuleReport) schema.Status {
	if refused := r.shown(); refused != nil {
		return schema.Status{Code: codeOf(*refused), Description: describe(*refused)}
	}
	if r.state.Trial && r.verdict.State == Failed {
		return schema.Status{Code: schema.CodeFailed, Description: r.verdict.Worst().String()}
	}
	if err := r.trouble[troubleState]; err != nil && !r.state.accepted() {
		return schema.Status{Code: schema.CodeEmpty, Description: err.Error()}
	}
	for _, topic := range []string{troubleTrial, troubleRuntime, troubleState, troubleTwin} {
		if err := r.trouble[topic]; err != nil {
			return schema.Status{Code: schema.CodeFailed, Description: err.Error()}
		}
	}
	if failing := notAsDeclared(modules); failing != "" {
		return schema.Status{Code: schema.CodeFailed, Description: failing}
	}
	if stays := r.failures.removal(); stays != "" {
		return schema.Status{Code: schema.CodeFailed, Description: stays}
	}
	for _, topic := range []string{troubleStaging, troubleImages, troubleSource} {
		if err := r.trouble[topic]; err != nil {
			code := schema.CodeOffline
			if _, refused := errors.AsType[*signing.RefusedError](err); refused {
				code = schema.CodeBadConfig
			} else if isOwn(err) {
				code = schema.CodeFailed
			}
			return schema.Status{Code: code, Description: err.Error()}
		}
	}
	if !r.state.accepted() {
		return schema.Status{Code: schema.CodeEmpty, Description: "no revision was accepted yet"}
	}
	if r.state.Order != nil {
		return schema.Status{Code: schema.CodeOK, Description: orderLine(*r.state.Order)}
	}
	return schema.Status{Code: schema.CodeOK}
}

// notAsDeclared says which module does not run as it should, and why: "sensor is
// in back-off: exited with code 3". Empty when all do.
func notAsDeclared(modules map[string]schema.ModuleReport) string {
	words := map[string]string{
		schema.RuntimeBackoff:   " is in back-off",
		schema.RuntimeFailed:    " has failed",
		schema.RuntimeUnhealthy: " is unhealthy",
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		m := modules[name]
		if word := words[m.RuntimeStatus]; word != "" && m.StatusDescription != "" {
			return name + word + ": " + m.StatusDescription
		} else if word != "" {
			return name + word
		}
	}
	return ""
}

// codeOf is how grave a refusal is: whether the definition is at fault or what
// came of it.
func codeOf(why schema.Refusal) int {
	switch why.Phase {
	case schema.PhaseFetching, schema.PhaseRendering, schema.PhaseVerifying:
		return schema.CodeBadConfig
	default:
		return schema.CodeFailed
	}
}

// describe says a refusal in a line.
func describe(why schema.Refusal) string {
	if why.By != "" {
		return "rolled back by " + why.By + ": " + why.Reason
	}
	return why.Reason
}

// modules is the state of each declared module. The caller holds r.mu.
func (r *Reconciler) modules() map[string]schema.ModuleReport {
	containers := make(map[string]schema.Container, len(r.observed.Containers))
	for _, c := range r.observed.Containers {
		was, ok := containers[c.Module]
		if !ok || liveliness(c) > liveliness(was) || liveliness(c) == liveliness(was) && r.asDeclared(c) {
			containers[c.Module] = c
		}
	}
	waits := map[string]Action{}
	for _, a := range r.plan {
		if a.Verb == Wait {
			waits[a.Module] = a
		}
	}
	modules := make(map[string]schema.ModuleReport, len(r.state.Target.Modules))
	for _, m := range r.state.Target.Modules {
		c, there := containers[m.Name]
		report := schema.ModuleReport{Image: m.Image}
		if there {
			report = r.container(c)
		}
		report.Output, report.Downtime = r.lastOutput(m.Name), schema.Duration(r.downtime(m.Name))
		report.RuntimeStatus, report.StatusDescription = runtimeStatus(m, c, there, waits[m.Name], r.failures[m.Name])
		if before, ended := r.tails.end(c.ID); ended && c.State == schema.StateRunning {
			report = restarted(report, before)
		}
		modules[m.Name] = report
	}
	return modules
}

// asDeclared reports whether c is made from the target's definition: for a while
// another container of the module may run beside it.
func (r *Reconciler) asDeclared(c schema.Container) bool {
	m, ok := r.state.Target.Module(c.Module)
	return ok && c.Hash == m.Hash()
}

// container is what is reported of a module's container: the runtime's own
// words and times.
func (r *Reconciler) container(c schema.Container) schema.ModuleReport {
	report := schema.ModuleReport{
		Image: c.Image, Commit: c.Commit, PID: c.PID, Restarts: c.Restarts,
		ExitCode: c.ExitCode, OOMKilled: c.OOMKilled,
		StartedAt: c.StartedAt, ExitedAt: c.ExitedAt,
	}
	if proof := r.shelf[c.Image].proof; c.State == schema.StateRunning && proof.Image() == c.Image {
		evidence := proof.Evidence()
		report.Evidence = &evidence
	}
	return report
}

// restarted adds to the report of a module that runs how it ended before: a
// module that comes back at once would hide why it went.
func restarted(report schema.ModuleReport, before schema.Container) schema.ModuleReport {
	report.ExitCode, report.OOMKilled, report.ExitedAt = before.ExitCode, before.OOMKilled, before.ExitedAt.UTC()
	report.StatusDescription = cmp.Or(report.StatusDescription, "before this run it "+ending(before))
	return report
}

// runtimeStatus is a module's state in Azure IoT Edge's words, and why.
func runtimeStatus(m schema.Module, c schema.Container, there bool, waits Action, failure Failure) (status, description string) {
	switch {
	case m.Status == schema.StatusStopped && !there:
		return schema.RuntimeStopped, ""
	case there && c.State == schema.StateRunning:
		return runningStatus(m, c, waits)
	case failure.Count > 0 && failure.Verb != Remove && failure.Verb != Stop:
		return schema.RuntimeFailed, failure.Verb + ": " + failure.Err.Error()
	case there && c.State == schema.StatePaused:
		return schema.RuntimeUnhealthy, "is paused"
	case there && c.State == schema.StateExited && restarts(m, c):
		return schema.RuntimeBackoff, ending(c) + again(waits)
	case there && c.State == schema.StateCreated && !waits.Until.IsZero():
		return schema.RuntimeBackoff, waits.Reason + again(waits)
	case there && c.State == schema.StateExited && !failed(c):
		return schema.RuntimeStopped, ending(c)
	case there && c.State == schema.StateExited:
		return schema.RuntimeFailed, ending(c)
	default:
		return schema.RuntimeUnknown, waits.Reason
	}
}

// again says when a module starts again, by the device's clock.
func again(waits Action) string {
	if waits.Until.IsZero() {
		return ""
	}
	return ", starts again at " + waits.Until.UTC().Format(time.RFC3339)
}

// runningStatus is the state of a module that runs: what its probes say.
func runningStatus(m schema.Module, c schema.Container, waits Action) (status, description string) {
	probed := m.Status != schema.StatusStopped && !m.Health.IsZero()
	switch {
	case probed && (c.Health == schema.HealthUnhealthy || c.Health == schema.HealthUnready):
		return schema.RuntimeUnhealthy, c.HealthReason
	case probed && c.Health != schema.HealthHealthy && c.Hash == m.Hash():
		return schema.RuntimeStarting, c.HealthReason
	default:
		return schema.RuntimeRunning, waits.Reason
	}
}
