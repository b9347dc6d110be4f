//go:build bench

package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/twin"
)

// measureBacklog queues messages of 1 KB while the hub is away, each answered when it
// is on the disk; looks at the agent's memory; then starts the hub and takes the time
// in which all arrive. Agent and hub are processes of their own.
func measureBacklog(t *testing.T, f *table) {
	n := *messages
	r := newRig(t)
	r.declare(many(1, r.image("module")))
	r.startAgent()
	r.healthy(r.dial())
	before := memoryOf(t, r.agent.PID())
	p := r.pump("m000", n, ingestInFlight)
	rate := pumpAll(t, p)
	p.conn.Close()
	queued := memoryOf(t, r.agent.PID())
	f.add("queued_"+amount(n)+"_rss_mib", queued["VmRSS"], "MiB", "the whole agent with %d messages of 1 KB queued, right behind the last; %.1f of it the binary's own pages; %.1f before the first, %.1f at its highest; they came at %.0f a second",
		n, queued["RssFile"], before["VmRSS"], queued["VmHWM"], rate)
	spent := cpuOf(t, r.agent.PID())
	r.startHub()
	took := arrived(t, r.hubStream(), n)
	drained := memoryOf(t, r.agent.PID())
	f.add("drain_"+amount(n)+"_msgs_per_s", float64(n)/took.Seconds(), "msg/s", "%d messages of 1 KB to a hub on this machine, first to last stored, each synced there, none twice; processor time: agent %.1f s, hub %.1f s; agent's memory at its highest %.1f MiB",
		n, (cpuOf(t, r.agent.PID()) - spent).Seconds(), cpuOf(t, r.hub.PID()).Seconds(), drained["VmHWM"])
}

// amount names a number of messages: 1m, 200k.
func amount(n int) string {
	if n%1_000_000 == 0 {
		return fmt.Sprintf("%dm", n/1_000_000)
	}
	return fmt.Sprintf("%dk", n/1000)
}

// arrived waits until all messages are stored, and returns the time between the
// first and the last.
func arrived(t *testing.T, stored jetstream.Stream, n int) time.Duration {
	t.Helper()
	var state jetstream.StreamState
	var there int // without the ranges that say what comes in another lane
	patiently(t, func() error {
		info, err := stored.Info(context.Background(), jetstream.WithSubjectFilter(twin.Lane(deviceName, "*")+".out.>"))
		if err != nil {
			return err
		}
		state, there = info.State, 0
		for _, count := range info.State.Subjects {
			there += int(count)
		}
		if there < n {
			return fmt.Errorf("%d of %d messages have arrived", there, n)
		}
		return nil
	})
	if there != n {
		t.Fatalf("the hub has %d messages, want %d", there, n)
	}
	return state.LastTime.Sub(state.FirstTime)
}
