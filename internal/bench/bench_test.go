//go:build bench

package bench

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

var (
	only     = flag.String("only", "", "measure what matches this regular expression")
	messages = flag.Int("messages", 1_000_000, "queue so many messages; figures of another number have another name")
)

// figure is one measured value. Names are stable: others read them.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Note  string  `json:"note"`
}

// table collects figures.
type table struct{ figures []figure }

func (f *table) add(name string, value float64, unit, note string, args ...any) {
	f.figures = append(f.figures, figure{name, value, unit, fmt.Sprintf(note, args...)})
}

// measurements are the parts of the benchmark, in the order of the table.
var measurements = []struct {
	name    string
	measure func(t *testing.T, f *table)
}{
	{"commit_to_running", measureCommitToRunning},
	{"noop_pass", measurePass},
	{"render", measureRender},
	{"verify", measureVerify},
	{"agent", measureAgent},
	{"idle", measureIdle},
	{"restart", measureRestart},
	{"replace", measureReplace},
	{"reported_update", measureReported},
	{"ingest", measureIngest},
	{"backlog", measureBacklog},
	{"resume", measureResume},
	{"mosquitto", measureMosquitto},
	{"sourcing", measureSourcing},
	{"pull", measurePull},
	{"binary", measureBinary},
}

func TestFigures(t *testing.T) {
	wanted, err := regexp.Compile(*only)
	if err != nil {
		t.Fatalf("ONLY: %v", err)
	}
	f := &table{}
	for _, m := range measurements {
		if wanted.MatchString(m.name) {
			fmt.Printf("measured next: %s, with a load of %s before it\n", m.name, load())
			t.Run(m.name, func(t *testing.T) { m.measure(t, f) })
		}
	}
	if len(f.figures) == 0 {
		t.Fatalf("ONLY=%s matches none of the measurements", *only)
	}
	f.print()
	f.write(t)
}

// print writes the table for people, with what it was measured on.
func (f *table) print() {
	fmt.Printf("\nmeasured on %s, %s, %s\n\n", harness.Machine(), runtime.Version(), time.Now().UTC().Format(time.DateOnly))
	fmt.Printf("| %-36s | %12s | %-7s | %s\n|%s|%s|%s|%s\n", "figure", "value", "unit", "note",
		strings.Repeat("-", 38), strings.Repeat("-", 14), strings.Repeat("-", 9), strings.Repeat("-", 40))
	for _, x := range f.figures {
		fmt.Printf("| %-36s | %12s | %-7s | %s\n", x.Name, digits(x.Value), x.Unit, x.Note)
	}
}

// digits writes a value with the digits that mean something.
func digits(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

// write puts the figures into build/bench.json, in place of those of the same
// name that are there.
func (f *table) write(t *testing.T) {
	path := filepath.Join(harness.Root(), "build", "bench.json")
	kept := []figure{}
	if old, err := os.Open(path); err == nil {
		for lines := bufio.NewScanner(old); lines.Scan(); {
			var x figure
			isNew := func(n figure) bool { return n.Name == x.Name }
			if json.Unmarshal(lines.Bytes(), &x) == nil && !slices.ContainsFunc(f.figures, isNew) {
				kept = append(kept, x)
			}
		}
		old.Close()
	}
	var out strings.Builder
	for _, x := range append(kept, f.figures...) {
		line, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(line, '\n'))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// percentile of values, which it sorts.
func percentile(values []float64, p float64) float64 {
	slices.Sort(values)
	return values[min(len(values)-1, int(float64(len(values))*p/100))]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// patiently waits for what a busy machine needs minutes for: many modules to run.
func patiently(t *testing.T, ok func() error) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
