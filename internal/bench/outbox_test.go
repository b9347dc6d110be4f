//go:build bench

package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/hub"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/twin"
)

// measureOutbox queues messages of 1 KB while the hub is away, each answered
// when it is on the disk, then starts the hub and takes the time in which all
// arrive.
func measureOutbox(t *testing.T, f *table) {
	const n, inFlight = 100_000, 1000
	r := newRig(t)
	r.declare(many(1, r.image("module")))
	r.startAgent()
	r.healthy(r.dial())
	conn, prefix := r.module(context.Background(), "m000")

	answered, refused := make(chan struct{}, inFlight), atomic.Int64{}
	inbox := twin.Inbox(deviceName, "m000") + ".answers"
	if _, err := conn.Subscribe(inbox, func(m *nats.Msg) {
		if _, err := twin.ReadAnswer(m.Data); err != nil {
			refused.Add(1)
		}
		answered <- struct{}{}
	}); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 1024)
	began := time.Now()
	sent, back := 0, 0
	for back < n {
		for ; sent < n && sent-back < inFlight; sent++ {
			if err := conn.PublishRequest(prefix+".out.reading", inbox, body); err != nil {
				t.Fatal(err)
			}
		}
		<-answered
		back++
	}
	took := time.Since(began)
	if refused.Load() > 0 {
		t.Fatalf("%d of %d messages were refused", refused.Load(), n)
	}
	f.add("outbox_in_msgs_per_s", n/took.Seconds(), "msg/s", "1 KB, one module, %d in flight, each answered when it is on disk; %d messages", inFlight, n)

	var alone []float64
	for range 500 {
		began := time.Now()
		if _, err := conn.Request(prefix+".out.reading", body, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		alone = append(alone, ms(time.Since(began)))
	}
	f.add("send_alone_p50_ms", percentile(alone, 50), "ms", "1 KB, one at a time, answered when it is on disk")
	r.drain(t, f, n+500)
}

// drain starts the hub and measures between the first and the last message that
// it stores.
func (r *rig) drain(t *testing.T, f *table, n int) {
	r.startHub()
	ctx := context.Background()
	var up jetstream.Stream
	harness.Eventually(t, func() error {
		nc, err := hub.Dial(r.hubAddr, filepath.Join(r.path("hub"), "operator.nk"))
		if err != nil {
			return err
		}
		js, err := jetstream.New(nc)
		if err == nil {
			up, err = js.Stream(ctx, hub.StreamMessages)
		}
		if err != nil {
			nc.Close()
		}
		return err
	})
	harness.Eventually(t, func() error {
		info, err := up.Info(ctx)
		if err == nil && info.State.Msgs < uint64(n) {
			err = fmt.Errorf("%d of %d messages have arrived", info.State.Msgs, n)
		}
		return err
	})
	info, err := up.Info(ctx)
	if err != nil || info.State.Msgs != uint64(n) {
		t.Fatalf("the hub has %d messages, want %d: %v", info.State.Msgs, n, err)
	}
	took := info.State.LastTime.Sub(info.State.FirstTime)
	f.add("outbox_drain_msgs_per_s", float64(n)/took.Seconds(), "msg/s", "%d messages of 1 KB to a hub on this machine, synced there, none twice", n)
}
