//go:build bench

package bench

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/twin"
)

// How often each way to lose the hub is tried; the figure is the worst.
const (
	resumeRounds = 5
	longRounds   = 1 // what lasts a minute
)

// measureResume has a module send a message each 10 ms, cuts the cable to the hub or
// kills the hub, and takes the time from when the cable is whole, or the hub
// listens, to when the hub has stored a message that was sent after that.
func measureResume(t *testing.T, f *table) {
	c := newCable(t)
	r := newRigWith(t, c)
	r.declare(many(1, r.image("module")))
	r.startHub()
	r.startAgent()
	r.healthy(r.dial())
	client := r.client("m000")
	s := newStream(t, func(ctx context.Context, body []byte) error { return client.Send(ctx, "reading", body) })
	defer s.end(t)
	r.storedSince(time.Now(), s.mark())

	for _, outage := range []struct {
		time.Duration
		rounds int
	}{{5 * time.Second, resumeRounds}, {20 * time.Second, resumeRounds}, {time.Minute, longRounds}} {
		took := times(outage.rounds, func() float64 {
			c.cut()
			time.Sleep(outage.Duration)
			mark, back := s.mark(), time.Now()
			c.mend()
			return ms(r.storedSince(back, mark))
		})
		f.add(fmt.Sprintf("resume_after_%.0fs_cut_ms", outage.Seconds()), percentile(took, 100), "ms",
			"everything lost on the way, no connection reset; from when it comes through again to a message sent after that stored at the hub; worst of %d, median %s", outage.rounds, digits(percentile(took, 50)))
	}
	started := []float64{}
	took := times(resumeRounds, func() float64 {
		r.hub.Stop(syscall.SIGKILL)
		time.Sleep(2 * time.Second)
		began := time.Now()
		r.startHub()
		back := listens(t, r.leafs)
		started = append(started, ms(back.Sub(began)))
		return ms(r.storedSince(back, s.mark()))
	})
	f.add("resume_after_hub_restart_ms", percentile(took, 100), "ms",
		"hub killed, started 2 s later; from when it listens (%s ms after its start) to a message sent after that stored; worst of %d, median %s",
		digits(percentile(started, 50)), resumeRounds, digits(percentile(took, 50)))
}

// times collects what a few rounds took, with the time between them that outages
// have.
func times(rounds int, round func() float64) (took []float64) {
	for range rounds {
		took = append(took, round())
		time.Sleep(2 * time.Second)
	}
	return took
}

// listens waits until somebody accepts connections there.
func listens(t *testing.T, address string) time.Time {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			conn.Close()
			return time.Now()
		}
	}
	t.Fatalf("nobody listens at %s", address)
	return time.Time{}
}

// storedSince waits until the hub has stored a message above mark, after back, and
// returns how long after, by the hub's time of storing it.
func (r *rig) storedSince(back time.Time, mark int) time.Duration {
	r.t.Helper()
	return storedSince(r.t, r.hubStream(), twin.LaneOut(deviceName, "*", "m000", "reading"), back, mark)
}

func storedSince(t *testing.T, from jetstream.Stream, subject string, back time.Time, mark int) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	consumer, err := from.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subject}, DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &back,
	})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.Fatalf("nothing new was stored: %v", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		if number, ok := numberOf(m.Data()); ok && number > mark {
			return meta.Timestamp.Sub(back)
		}
	}
}
