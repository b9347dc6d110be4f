//go:build soak

package fault_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

// round is what came of one.
type round struct {
	Fault      string
	FS         string
	Containerd string
	Change     string // what was declared
	At         string // "at a failpoint" or "now"
	RolledBack bool   // a good revision failed its trial because of the fault
	Messages   int    // that modules were told are on the disk
	Took       float64
	Violations []string
}

// row sums rounds up.
type row struct {
	Fault, FS, Containerd string
	Rounds                int      // all
	AtFailpoint           int      // of them at a failpoint
	RolledBack            int      // of them went back from a good revision, as they should
	Violations            int      // of them kept a promise not
	Messages              int      // that modules were told are on the disk
	Seconds               float64  // all together
	Examples              []string // the first few violations
}

// run is a line of the result file.
type run struct {
	Version string // of the product
	Machine string
	Seed    uint64
	Began   time.Time
	Rows    []row
}

// tally collects the rounds of all devices.
type tally struct {
	until time.Time // no round begins after it, where it is set

	mu  sync.Mutex
	run run
}

// over reports whether no more rounds are to begin.
func (f *tally) over() bool { return !f.until.IsZero() && time.Now().After(f.until) }

func newTally(seed uint64) *tally {
	version, _ := exec.Command("git", "-C", harness.Root(), "describe", "--always", "--dirty").Output()
	return &tally{run: run{Version: strings.TrimSpace(string(version)), Machine: harness.Machine(), Seed: seed, Began: time.Now().UTC().Truncate(time.Second)}}
}

func (f *tally) violations() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.run.Rows {
		n += r.Violations
	}
	return n
}

func (f *tally) add(r round) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := row{Fault: r.Fault, FS: r.FS, Containerd: r.Containerd, Rounds: 1, Messages: r.Messages, Seconds: r.Took}
	if r.At != "now" {
		sum.AtFailpoint = 1
	}
	if r.RolledBack {
		sum.RolledBack = 1
	}
	if len(r.Violations) > 0 {
		sum.Violations, sum.Examples = 1, r.Violations
	}
	f.run.Rows = merge(f.run.Rows, sum)
	fmt.Printf("%s %-16s %-4s containerd %-3s %-15s %-14s %5.1f s %s\n", time.Now().Format("15:04:05"), r.Fault, r.FS, r.Containerd, r.Change, r.At, r.Took, strings.Join(r.Violations, "; "))
}

// merge adds a row to those of its kind.
func merge(rows []row, r row) []row {
	i := slices.IndexFunc(rows, func(o row) bool { return o.Fault == r.Fault && o.FS == r.FS && o.Containerd == r.Containerd })
	if i < 0 {
		return append(rows, r)
	}
	o := &rows[i]
	o.Rounds, o.AtFailpoint, o.RolledBack, o.Violations = o.Rounds+r.Rounds, o.AtFailpoint+r.AtFailpoint, o.RolledBack+r.RolledBack, o.Violations+r.Violations
	o.Messages, o.Seconds = o.Messages+r.Messages, o.Seconds+r.Seconds
	if o.Examples = append(o.Examples, r.Examples...); len(o.Examples) > 5 {
		o.Examples = o.Examples[:5]
	}
	return rows
}

// publish adds this run to the file, a line, and prints the table of all runs that
// are in it.
func (f *tally) publish(t *testing.T, path string) {
	line, err := json.Marshal(f.run)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	var rows []row
	runs := bufio.NewScanner(file)
	runs.Buffer(nil, 16<<20)
	for runs.Scan() {
		var r run
		if err := json.Unmarshal(runs.Bytes(), &r); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		fmt.Printf("\nrun of %s on %s, seed %d, version %s", r.Began.Format(time.DateTime), r.Machine, r.Seed, r.Version)
		for _, x := range r.Rows {
			rows = merge(rows, x)
		}
	}
	print(rows)
}

// print writes the table in Markdown.
func print(rows []row) {
	slices.SortFunc(rows, func(a, b row) int {
		return strings.Compare(a.Fault+a.Containerd+a.FS, b.Fault+b.Containerd+b.FS)
	})
	fmt.Print("\n\n| fault | containerd | filesystem | rounds | at a failpoint | went back from a revision on trial | messages taken | s per round | violations |\n|---|---|---|---|---|---|---|---|---|\n")
	var all row
	for _, r := range rows {
		fmt.Printf("| %s | %s | %s | %d | %d | %d | %d | %.1f | %d |\n", r.Fault, r.Containerd, r.FS, r.Rounds, r.AtFailpoint, r.RolledBack, r.Messages, r.Seconds/float64(max(1, r.Rounds)), r.Violations)
		all = merge([]row{all}, row{Rounds: r.Rounds, AtFailpoint: r.AtFailpoint, RolledBack: r.RolledBack, Violations: r.Violations, Messages: r.Messages, Seconds: r.Seconds})[0]
	}
	fmt.Printf("| **all** | | | %d | %d | %d | %d | %.1f | %d |\n", all.Rounds, all.AtFailpoint, all.RolledBack, all.Messages, all.Seconds/float64(max(1, all.Rounds)), all.Violations)
	for _, r := range rows {
		for _, e := range r.Examples {
			fmt.Printf("violation: %s, containerd %s, %s: %s\n", r.Fault, r.Containerd, r.FS, e)
		}
	}
}

// splitList are the parts of a flag, or all.
func splitList(s string, all []string) []string {
	if s == "" {
		return all
	}
	return strings.Split(s, ",")
}
