//go:build bench

package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

const (
	ingestMessages = 100_000
	ingestInFlight = 2000 // of all modules
	singleMessages = 20_000
	aloneMessages  = 2000
)

// measureIngest sends messages of 1 KB, each answered when it is on the disk, by one
// module, by ten, and one at a time; and the same messages to a NATS server of the same
// version that syncs each for itself, as JetStream does where every acknowledged
// message has to survive a power cut.
func measureIngest(t *testing.T, f *table) {
	r := newRig(t)
	r.declare(many(10, r.image("module")))
	r.startAgent()
	r.healthy(r.dial())
	single := measureSingle(t, f)
	for _, modules := range []int{1, 10} {
		var pumps []pump
		for m := range modules {
			pumps = append(pumps, r.pump(fmt.Sprintf("m%03d", m), ingestMessages/modules, ingestInFlight/modules))
		}
		rate := pumpAll(t, pumps...)
		name, who := "", "one module"
		if modules > 1 {
			name, who = fmt.Sprintf("_%d_modules", modules), fmt.Sprintf("%d modules", modules)
		}
		f.add("durable_ingest"+name+"_msgs_per_s", rate, "msg/s", "1 KB, %s, %d unanswered, each answered when it is on the disk; %d messages", who, ingestInFlight, ingestMessages)
		f.add("durable_ingest"+name+"_vs_single_fsync_ratio", rate/single, "x", "of this, and of one fsync a message")
	}
	client := r.client("m000")
	var alone []float64
	for range aloneMessages {
		began := time.Now()
		if err := client.Send(context.Background(), "reading", make([]byte, messageSize)); err != nil {
			t.Fatal(err)
		}
		alone = append(alone, ms(time.Since(began)))
	}
	f.add("send_durable_p50_ms", percentile(alone, 50), "ms", "twin.Client.Send of 1 KB, one at a time: on the disk, and answered; %d in a row", aloneMessages)
	f.add("send_durable_p99_ms", percentile(alone, 99), "ms", "the same")
}

// measureSingle is what the stock server does with one fsync for each message.
func measureSingle(t *testing.T, f *table) float64 {
	s := newNATS(t, "single", "")
	s.start()
	conn := s.dial()
	addStream(t, conn, "SINGLE", "single.>")
	rate := pumpAll(t, pump{conn: conn, subject: "single.reading", inbox: conn.NewInbox(), n: singleMessages, inFlight: ingestInFlight, read: readStored})
	f.add("single_fsync_msgs_per_s", rate, "msg/s", "nats-server %s, the same disk, sync_interval always, 1 KB published with %d unanswered; %d messages", s.version(), ingestInFlight, singleMessages)
	return rate
}

// pump sends as a module.
func (r *rig) pump(module string, n, inFlight int) pump {
	conn, prefix := r.module(context.Background(), module)
	return pump{
		conn: conn, subject: prefix + ".out.reading", inbox: twin.Inbox(deviceName, module) + ".answers", n: n, inFlight: inFlight,
		read: func(m *nats.Msg) error {
			_, err := twin.ReadAnswer(m.Data)
			return err
		},
	}
}
