//go:build bench

package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
)

const commits = 25 // rounds, each a commit that replaces a module

// measureCommitToRunning takes the time from the kick, with the commit in the
// repository, to the first statement of the new module's main: once with the
// image on the disk, once with an image to pull. What a bare containerd client
// needs to replace the same container is containerd's and runc's own.
func measureCommitToRunning(t *testing.T, f *table) {
	r := newRig(t)
	image := r.image("probe")
	r.declare(map[string]string{"probe": body(image, 0)})
	r.startHub()
	r.startAgent()
	conn := r.dial()
	r.healthy(conn)

	bare := r.bareClient()
	var warm, theirs, cold []float64
	for round := range commits {
		// In turns, so that a machine that gets slower is slower for both.
		warm = append(warm, ms(r.commitToRunning(conn, image, round+1)))
		theirs = append(theirs, ms(r.bareReplacement(bare, "probe")))
		r.healthy(conn)
	}
	for round := range 10 {
		image = r.image(fmt.Sprintf("probe%d", round))
		cold = append(cold, ms(r.commitToRunning(conn, image, commits+round+1)))
	}
	total, least := percentile(warm, 50), percentile(theirs, 50)
	f.add("commit_to_running_warm_p50_ms", total, "ms", "kick to main(), image on disk, one module replaced, %d commits, containerd %s", commits, r.daemon.Version)
	f.add("commit_to_running_warm_p99_ms", percentile(warm, 99), "ms", "the same, worst of %d", commits)
	f.add("bare_replace_p50_ms", least, "ms", "a bare containerd client replaces the same container")
	f.add("commit_to_running_own_share_p50_ms", total-least, "ms", "the difference of the two medians")
	f.add("commit_to_running_pull_p50_ms", percentile(cold, 50), "ms", "kick to main(), image to be verified and pulled from a registry on this machine")
}

// body is a module's definition that differs in each round.
func body(image schema.Image, round int) string {
	return fmt.Sprintf("image: %q, env: ROUND: \"%d\"", image, round)
}

func (r *rig) commitToRunning(conn *nats.Conn, image schema.Image, round int) time.Duration {
	r.declare(map[string]string{"probe": body(image, round)})
	t0 := time.Now()
	if err := reconcile(conn); err != nil {
		r.t.Fatal(err)
	}
	took := r.beganAfter("probe", t0)
	r.healthy(conn)
	return took
}

// bareReplacement is the same by the bare client; the agent is halted meanwhile.
func (r *rig) bareReplacement(bare bare, module string) time.Duration {
	defer r.halt()()
	record := bare.record(module)
	t0 := time.Now()
	if err := bare.replace(record); err != nil {
		r.t.Fatal(err)
	}
	return r.beganAfter(module, t0)
}
