package main

import (
	"bytes"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// TestListShowsWhatIsWrong: in a list of thousands of twins one must find the
// devices and modules that are not well.
func TestListShowsWhatIsWrong(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	device := twin.Document{Device: "d1"}
	device.Properties.Reported = twin.Section{
		Version: 7,
		Values: map[string]any{
			"phase":             "rolled-back",
			"lastDesiredStatus": map[string]any{"code": 500},
			"modules":           map[string]any{"m": map[string]any{"runtimeStatus": "backoff"}},
		},
		Metadata: map[string]any{"$lastUpdated": "2026-03-01T11:00:00.000Z", "phase": map[string]any{"$lastUpdated": at.Format(time.RFC3339)}},
	}
	docs := []twin.Document{device, {Device: "d1", Module: "m"}, {Device: "d2"}}
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 4, 1, ' ', 0)
	printTwins(w, docs)
	w.Flush()
	lines := strings.Split(out.String(), "\n")
	for i, want := range []string{"", "/devices/d1 rolled-back (500) 0 7", "/devices/d1/modules/m backoff", "/devices/d2 -"} {
		if got := strings.Join(strings.Fields(lines[i]), " "); !strings.HasPrefix(got, want) {
			t.Errorf("line %d: %q, want %q", i, got, want)
		}
	}
	if want := at.Local().Format(time.DateTime); !strings.HasSuffix(lines[1], want) {
		t.Errorf("%q does not end with %s", lines[1], want)
	}
}
