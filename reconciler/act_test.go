package reconciler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// nine are modules that take ten seconds each to start.
func nine(w *world, value string) []schema.Module {
	var modules []schema.Module
	for i := range 9 {
		m := module(fmt.Sprintf("m%d", i), env(value))
		w.machine.lag[m.Name] = 10 * time.Second
		modules = append(modules, m)
	}
	return modules
}

// A small device has memory for few starts at once, and none for a pause between
// them.
func TestModulesStartFourAtATime(t *testing.T) {
	inWorld(t, func(w *world) {
		w.push(nine(w, "1")...)
		for _, want := range []int{0, 4, 8, 9} {
			report, running := w.Report(), 0
			for _, m := range report.Modules {
				if m.RuntimeStatus == schema.RuntimeRunning {
					running++
				}
			}
			if running != want {
				t.Fatalf("%d modules run, want %d\n%s", running, want, w.lines)
			}
			after(10*time.Second + 100*time.Millisecond)
		}
	})
}

// What waits for its turn to start is not started when a newer revision has come.
func TestStartsThatWaitAreForgoneForANewerRevision(t *testing.T) {
	inWorld(t, func(w *world) {
		w.push(nine(w, "1")...)
		after(5 * time.Second)
		w.push(nine(w, "2")...)
		after(time.Minute)
		started := 0
		for _, did := range w.machine.done() {
			if verb(did) == "start" {
				started++
			}
		}
		if started != 4+9 { // those that were under way, and all that are declared now
			t.Errorf("%d modules were started, want 13\n%s", started, w.lines)
		}
	})
}
