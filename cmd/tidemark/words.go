package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/tidemark-edge/tidemark/schema"
)

// word is one that reports use, and what it says to a person.
type word struct{ word, says string }

// phases are the words of Report.Phase, in the order in which a commit meets
// them.
var phases = []word{
	{schema.PhaseWaiting, "no revision was accepted yet"},
	{schema.PhaseFetching, "asks the fleet repository"},
	{schema.PhaseRendering, "turns the commit into this device's definition"},
	{schema.PhaseVerifying, "checks the signatures of its images"},
	{schema.PhaseStaging, "brings its images to the disk; what runs goes on"},
	{schema.PhaseSwitching, "replaces modules"},
	{schema.PhaseGating, "changed modules run, on trial until their gate has passed"},
	{schema.PhaseHealthy, "the revision has passed its gate; of modules, see below"},
	{schema.PhaseRollingBack, "returns to an earlier revision"},
	{schema.PhaseRolledBack, "an earlier revision runs; refused or left says why"},
	{schema.PhaseSuspended, "a person ordered that nothing newer is taken over"},
}

// runtimeStates are the words of ModuleReport.RuntimeStatus.
var runtimeStates = []word{
	{schema.RuntimeStarting, "runs; its startup or readiness probe has not said yes yet, nor no"},
	{schema.RuntimeRunning, "runs, and no probe says otherwise"},
	{schema.RuntimeUnhealthy, "runs, and a probe says no, or it is paused"},
	{schema.RuntimeBackoff, "ended, and waits for its next start"},
	{schema.RuntimeStopped, "by declaration, or ended and is not to run again"},
	{schema.RuntimeFailed, "ended with an error and is not to run again, or cannot be started"},
	{schema.RuntimeUnknown, "declared, and not started yet"},
}

// events are the words of Event.Kind.
var events = []word{
	{schema.EventTakenOver, "it is what shall run, on trial"},
	{schema.EventHealthy, "it has passed its gate"},
	{schema.EventRefused, "it is not run"},
	{schema.EventRolledBack, "it failed its trial, or a person left it"},
	{schema.EventRetry, "a person had it tried again"},
	{schema.EventSuspend, "a person ordered that nothing newer is taken over"},
	{schema.EventHold, "a person ordered that it runs until resumed"},
	{schema.EventOverride, "a person set desired of a twin over what Git says"},
	{schema.EventOverridden, "what a person set over Git ended"},
	{schema.EventRotate, "a person gave a module a new key"},
	{schema.EventResume, "a person let the device follow Git again"},
	{schema.EventReconcile, "a person had the device look at Git at once"},
}

// deviceMethods are the direct methods of the device, and what they take.
var deviceMethods = []word{
	{methodStatus, "what `tidemark status` shows"},
	{methodHistory, "what `tidemark history` shows"},
	{methodPlan, "of a definition, as `tidemark render` prints it"},
	{methodReconcile, `{"by"}`},
	{methodSuspend, `{"by", "reason"}`},
	{methodResume, `{"by", "reason"}`},
	{methodRollback, `{"by", "reason", "to", "hold"}`},
	{methodRetry, `{"by", "reason"}`},
	{methodTwinSet, `{"module", "patch", "for", "by", "reason"}`},
	{methodTwinUnset, `{"module", "by"}`},
	{methodIdentities, "what `tidemark identity list` shows"},
	{methodRotate, `{"module", "grace", "by", "reason"}`},
}

// explained is a table of words for a help text.
func explained(words []word) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	for _, x := range words {
		fmt.Fprintf(w, "  %s\t%s\n", x.word, x.says)
	}
	w.Flush() // into memory
	return strings.TrimRight(b.String(), "\n")
}
