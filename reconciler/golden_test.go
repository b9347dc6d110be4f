package reconciler_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestDiff runs testdata/diff: desired, observed and now, and the plan for them.
func TestDiff(t *testing.T) {
	golden(t, "diff", "plan", func(c situation) string {
		plan := reconciler.Diff(c.desired, c.observed, now, c.lastGood).Explain(c.desired, c.observed, c.lastGood)
		var b strings.Builder
		for _, a := range plan {
			b.WriteString(a.String())
			if !a.Until.IsZero() {
				fmt.Fprintf(&b, " (in %v)", a.Until.Sub(now))
			}
			if a.Verb == reconciler.Restart {
				fmt.Fprintf(&b, " (restart %d)", a.Restarts)
			}
			if a.After != "" {
				fmt.Fprintf(&b, " (after %s)", a.After)
			}
			b.WriteByte('\n')
		}
		return b.String()
	})
}

// TestJudge runs testdata/judge: desired, last-good, observed, failures and for
// how long the trial goes on, and the verdict on them.
func TestJudge(t *testing.T) {
	golden(t, "judge", "verdict", func(c situation) string {
		v := reconciler.Judge(c.trial, c.observed, now)
		var b strings.Builder
		b.WriteString(v.State)
		if !v.Until.IsZero() {
			fmt.Fprintf(&b, " (in %v)", v.Until.Sub(now))
		}
		b.WriteByte('\n')
		for _, j := range v.Modules {
			fmt.Fprintln(&b, strings.TrimSpace(fmt.Sprintf("%-7s %s", j.State, j)))
		}
		if v.State == reconciler.Failed {
			fmt.Fprintf(&b, "%s\n", v)
		}
		return b.String()
	})
}

// now is when every golden file is looked at. Ages in observed are before it.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// situation is the input of a golden file.
type situation struct {
	desired, lastGood schema.Desired
	observed          schema.Observed
	trial             reconciler.Trial
}

// container is a container in a golden file: Of names the definition that it is
// made from, "desired" or "last-good"; times are ages.
type container struct {
	schema.Container
	Of              string
	Started, Exited string
	Since           string // of Health
}

func golden(t *testing.T, dir, result string, run func(situation) string) {
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			must(t, err)
			want := &archive.Files[len(archive.Files)-1]
			if want.Name != result {
				t.Fatalf("%s ends with %q, want %q", path, want.Name, result)
			}
			got := run(read(t, archive))
			if *update {
				want.Data = []byte(got)
				must(t, os.WriteFile(path, txtar.Format(archive), 0o644))
			} else if got != string(want.Data) {
				t.Errorf("%s: got\n%swant\n%s", path, got, want.Data)
			}
		})
	}
}

func read(t *testing.T, archive *txtar.Archive) situation {
	t.Helper()
	var s situation
	containers, failures := []container{}, map[string]struct {
		Verb  string
		Count int
		Err   string
	}{}
	var age string
	inputs := map[string]any{"desired": &s.desired, "last-good": &s.lastGood, "observed": &containers, "failures": &failures, "trial": &age}
	for _, f := range archive.Files[:len(archive.Files)-1] {
		d := json.NewDecoder(bytes.NewReader(f.Data))
		d.DisallowUnknownFields()
		if err := d.Decode(inputs[f.Name]); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
	}
	for _, c := range containers {
		s.observed.Containers = append(s.observed.Containers, s.place(t, c))
	}
	s.trial = reconciler.Trial{Desired: s.desired, LastGood: s.lastGood, Failures: map[string]reconciler.Failure{}, Since: now.Add(-time.Minute)}
	if age != "" {
		s.trial.Since = ago(t, age)
	}
	for module, f := range failures {
		s.trial.Failures[module] = reconciler.Failure{Verb: cmp.Or(f.Verb, reconciler.Start), Err: errors.New(f.Err), Count: f.Count}
	}
	return s
}

// place completes a container from the definition that it is made from.
func (s situation) place(t *testing.T, c container) schema.Container {
	t.Helper()
	if c.Of != "" {
		m, ok := map[string]schema.Desired{"desired": s.desired, "last-good": s.lastGood}[c.Of].Module(c.Module)
		if !ok {
			t.Fatalf("no module %s in %s", c.Module, c.Of)
		}
		c.Hash, c.Image = m.Hash(), m.Image
	}
	if c.ID == "" {
		c.ID = c.Module + "." + c.Of
	}
	c.StartedAt, c.ExitedAt, c.HealthSince = ago(t, c.Started), ago(t, c.Exited), ago(t, c.Since)
	return c.Container
}

func ago(t *testing.T, age string) time.Time {
	t.Helper()
	if age == "" {
		return time.Time{}
	}
	d, err := time.ParseDuration(age)
	must(t, err)
	return now.Add(-d)
}
