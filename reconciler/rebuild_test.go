package reconciler

import (
	"testing"

	"github.com/tidemark-edge/tidemark/schema"
)

// A state that is rebuilt after newer revisions ran names no older crash: its
// phase would be rolled-back for ever.
func TestARebuiltStateRefusesOnlyWhatWasReturnedFromSince(t *testing.T) {
	event := func(kind, commit, by string) schema.Event {
		return schema.Event{Kind: kind, Revision: schema.Revision{Commit: commit}, By: by}
	}
	crashed, person := event(schema.EventRolledBack, "2", ""), event(schema.EventRolledBack, "2", "ada")
	for name, tc := range map[string]struct {
		then    []schema.Event
		crash   schema.Event
		refused bool
	}{
		"crashed":                        {nil, crashed, true},
		"crashed, then a newer one":      {[]schema.Event{event(schema.EventTakenOver, "3", ""), event(schema.EventHealthy, "3", "")}, crashed, false},
		"crashed, of the newer only end": {[]schema.Event{event(schema.EventHealthy, "3", "")}, crashed, false},
		"left, and back":                 {[]schema.Event{event(schema.EventTakenOver, "1", ""), event(schema.EventHealthy, "1", "")}, person, true},
		"left, back, then a newer one":   {[]schema.Event{event(schema.EventTakenOver, "1", ""), event(schema.EventTakenOver, "3", "")}, person, false},
		"crashed, retried":               {[]schema.Event{event(schema.EventRetry, "2", "ada")}, crashed, false},
		"crashed again":                  {[]schema.Event{event(schema.EventTakenOver, "3", ""), crashed}, crashed, true},
	} {
		t.Run(name, func(t *testing.T) {
			before := []schema.Event{event(schema.EventTakenOver, "1", ""), event(schema.EventHealthy, "1", ""), event(schema.EventTakenOver, "2", ""), tc.crash}
			s := rebuilt(schema.Desired{Revision: schema.Revision{Commit: "1"}}, append(before, tc.then...))
			if (s.Refused != nil) != tc.refused {
				t.Errorf("refused: %+v", s.Refused)
			}
			if _, bad := s.bad("2"); bad == (name == "crashed, retried") {
				t.Errorf("bad: %+v", s.Bad)
			}
		})
	}
}
