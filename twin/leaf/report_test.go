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
	r := schema.Report{Phase: schema.PhaseHealthy, Modules: map[string]schema.ModuleReport{}, Surroundings: fullSurroundings()}
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
		outbox, _ := d.Properties.Reported.Values["outbox"].(map[string]any)
		lanes, _ := outbox["lanes"].(map[string]any)
		unrouted, _ := d.Properties.Reported.Values["unrouted"].(map[string]any)
		overrides, _ := d.Properties.Reported.Values["overrides"].([]any)
		if len(lanes) != 32 || len(unrouted) != 33 || len(overrides) != schema.MaxOverridesReported {
			t.Errorf("%s: %d lanes, %d unrouted, %d overrides", name, len(lanes), len(unrouted), len(overrides))
		}
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

// fullSurroundings are as large as an agent makes them.
func fullSurroundings() schema.Surroundings {
	name, text := strings.Repeat("n", 60), strings.Repeat("ä", 300)
	s := schema.Surroundings{
		Hub:      &schema.HubReport{URL: "tls://" + strings.Repeat("h", 250) + ":7422", Since: time.Now()},
		Outbox:   &schema.OutboxReport{Lanes: map[string]schema.LaneReport{}, Problem: text},
		Unrouted: map[string]uint64{"others": 1 << 50},
		Clock:    &schema.ClockReport{Why: text},
	}
	lost := map[string]uint64{}
	for _, reason := range []string{twin.LostTTL, twin.LostBound, twin.LostDamaged, twin.LostWiped, twin.LostDeferred, twin.LostSettled} {
		lost[reason] = 1 << 50
	}
	for i := range 32 {
		n := fmt.Sprintf("%s-%02d", name, i)
		s.Outbox.Lanes[n] = schema.LaneReport{Pending: 1 << 50, Bytes: 1 << 40, Oldest: time.Now(), Delivered: 1 << 50, Refused: 1 << 50, Lost: lost, Problem: text}
		s.Unrouted[n+"/"+name] = 1 << 50
		s.Overrides = append(s.Overrides, schema.OverrideReport{Module: n, By: text, Reason: text, At: time.Now(), Until: time.Now()})
	}
	return s
}
