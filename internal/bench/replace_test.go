//go:build bench

package bench

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"golang.org/x/sync/errgroup"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

const (
	replaced     = 50 // modules in one revision
	replacements = 5  // rounds, each a commit that replaces all of them
	// atOnce is how many containers the bare client replaces at a time: as many as
	// the agent starts at a time.
	atOnce = 4
)

// measureReplace takes the time in which one commit replaces 50 modules, the
// image being on the disk: from the kick to the last new main. A bare client
// replaces the same 50 containers in turns.
func measureReplace(t *testing.T, f *table) {
	r := newRig(t)
	image := r.image("module")
	r.declare(manyIn(0, image))
	r.startHub()
	r.startAgent()
	conn := r.dial()
	r.healthy(conn)

	bare := r.bareClient()
	var ours, switching, theirs []float64
	for round := 1; round <= replacements; round++ {
		theirs = append(theirs, r.bareReplaceAll(bare).Seconds()*1000)
		harness.Eventually(t, func() error { return known(conn, bare, "m000") })
		r.healthy(conn)

		r.declare(manyIn(round, image))
		t0 := time.Now()
		if err := reconcile(conn); err != nil {
			t.Fatal(err)
		}
		last := t0.Add(r.allBeganAfter(t0))
		ours = append(ours, ms(last.Sub(t0)))
		switching = append(switching, ms(last.Sub(r.tookOver())))
		r.healthy(conn)
	}
	total, switched, least := percentile(ours, 50), percentile(switching, 50), percentile(theirs, 50)
	f.add("replace_50_ms", total, "ms", "kick to the last main() of %d modules that one commit replaces, image on disk; median of %d commits", replaced, replacements)
	f.add("replace_50_switch_ms", switched, "ms", "of that, from when the fetched, rendered, verified revision is taken over")
	f.add("bare_replace_50_ms", least, "ms", "a bare containerd client replaces the same containers, %d at a time, in turns", atOnce)
	f.add("replace_50_overhead_ratio", total/least, "x", "of kick to last main(), fetch and render included, to the bare client's; %.2f without them", switched/least)
}

// manyIn are the 50 modules as they are in a round.
func manyIn(round int, image schema.Image) map[string]string {
	modules := map[string]string{}
	for i := range replaced {
		modules[fmt.Sprintf("m%03d", i)] = body(image, round)
	}
	return modules
}

// bareReplaceAll has the bare client replace all containers, the agent being
// halted.
func (r *rig) bareReplaceAll(bare bare) time.Duration {
	defer r.halt()()
	var records []containers.Container
	for i := range replaced {
		records = append(records, bare.record(fmt.Sprintf("m%03d", i)))
	}
	t0 := time.Now()
	var all errgroup.Group
	all.SetLimit(atOnce)
	for _, record := range records {
		all.Go(func() error { return bare.replace(record) })
	}
	if err := all.Wait(); err != nil {
		r.t.Fatal(err)
	}
	return r.allBeganAfter(t0)
}

// allBeganAfter waits for a main of each module that began after t0 and returns
// when the last did.
func (r *rig) allBeganAfter(t0 time.Time) (last time.Duration) {
	for i := range replaced {
		last = max(last, r.beganAfter(fmt.Sprintf("m%03d", i), t0))
	}
	return last
}

// tookOver is when the agent took the newest revision over, as it logged.
func (r *rig) tookOver() (at time.Time) {
	log, err := os.Open(r.agent.Log())
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if line := lines.Text(); strings.Contains(line, "take over") {
			stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
			if at, err = time.Parse(time.RFC3339Nano, stamp); err != nil {
				r.t.Fatalf("log line %q: %v", line, err)
			}
		}
	}
	if at.IsZero() {
		r.t.Fatal("the agent took nothing over")
	}
	return at
}
