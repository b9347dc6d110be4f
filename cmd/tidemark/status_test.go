package main

import (
	"testing"

	"github.com/tidemark-edge/tidemark/schema"
)

// TestStatusIsNoWhenAModuleIsDown: a pipeline that asks for the exit code must
// not hear that all is well while a module crashes again and again, or while
// containerd is gone.
func TestStatusIsNoWhenAModuleIsDown(t *testing.T) {
	healthy := func(code int, modules ...string) schema.Report {
		r := schema.Report{Phase: schema.PhaseHealthy, LastDesiredStatus: schema.Status{Code: code}, Modules: map[string]schema.ModuleReport{}}
		for _, status := range modules {
			r.Modules[status] = schema.ModuleReport{RuntimeStatus: status}
		}
		return r
	}
	for name, c := range map[string]struct {
		report schema.Report
		want   bool
	}{
		"all run":                        {healthy(schema.CodeOK, schema.RuntimeRunning), true},
		"one is done":                    {healthy(schema.CodeOK, schema.RuntimeRunning, schema.RuntimeStopped), true},
		"repository unreachable":         {healthy(schema.CodeOffline, schema.RuntimeRunning), true},
		"containerd gone":                {healthy(schema.CodeFailed, schema.RuntimeRunning), false},
		"one in back-off":                {healthy(schema.CodeOK, schema.RuntimeRunning, schema.RuntimeBackoff), false},
		"one failed":                     {healthy(schema.CodeOK, schema.RuntimeFailed), false},
		"one not seen":                   {healthy(schema.CodeOK, schema.RuntimeUnknown), false},
		"refused":                        {schema.Report{Phase: schema.PhaseHealthy, Refused: &schema.Refusal{}}, false},
		"suspended, and the newest":      {schema.Report{Phase: schema.PhaseSuspended}, true},
		"suspended, with a newer commit": {schema.Report{Phase: schema.PhaseSuspended, Newest: schema.Revision{Commit: "c"}}, false},
		"a twin is overridden":           {schema.Report{Phase: schema.PhaseHealthy, Surroundings: schema.Surroundings{Overrides: []schema.OverrideReport{{By: "anna"}}}}, false},
		"rolled back":                    {schema.Report{Phase: schema.PhaseRolledBack}, false},
	} {
		if got := asDeclared(c.report); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
