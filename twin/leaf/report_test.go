package leaf

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// TestReportOfManyModulesIsTaken has as many modules as a device may have, all
// well, and then all with much to say.
func TestReportOfManyModulesIsTaken(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared())
	image := schema.Image("registry.example.com:5000/" + strings.Repeat("r", 229) + "@sha256:" + strings.Repeat("a", 64))
	r := schema.Report{Phase: schema.PhaseHealthy, Modules: map[string]schema.ModuleReport{}}
	for i := range 500 {
		r.Modules[fmt.Sprintf("%s-%03d", strings.Repeat("m", 59), i)] = schema.ModuleReport{
			RuntimeStatus: schema.RuntimeRunning, Image: image, Commit: strings.Repeat("c", 40),
			PID: 123456, ExitCode: 137, OOMKilled: true, Restarts: 1000, StartedAt: time.Now(), ExitedAt: time.Now(),
			Evidence: &schema.Evidence{Image: image, Signer: "key sha256:" + strings.Repeat("f", 64), Rule: "release", Format: "sigstore-bundle", Verified: time.Now()},
		}
	}
	for name, change := range map[string]func(*schema.ModuleReport){
		"well": func(*schema.ModuleReport) {},
		"ill": func(m *schema.ModuleReport) {
			m.RuntimeStatus, m.StatusDescription = schema.RuntimeFailed, strings.Repeat("start: <ä> ", 500)
			m.Output = strings.Repeat("x", 4096)
		},
	} {
		for module, m := range r.Modules {
			change(&m)
			r.Modules[module] = m
		}
		r.LastDesiredStatus.Description = name + strings.Repeat(" all of it", 100_000)
		r.Refused = &schema.Refusal{Reason: strings.Repeat("because ", 100_000)}
		if err := l.Report(t.Context(), r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		d := l.Documents()[0]
		modules, _ := d.Properties.Reported.Values["modules"].(map[string]any)
		if len(modules) != 500 || len(d.Encode()) > twin.MaxDocument {
			t.Errorf("%s: %d modules in %d bytes", name, len(modules), len(d.Encode()))
		}
	}
	if n := strings.Count(s.warned(), "reporting without evidence"); n != 1 {
		t.Errorf("warned %d times: %s", n, s.warned())
	}
	if r.Modules[strings.Repeat("m", 59)+"-000"].Evidence == nil || len(r.Refused.Reason) < 100_000 {
		t.Error("the caller's report was changed")
	}
}
