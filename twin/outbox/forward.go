package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/twin"
)

const (
	fetchBytes    = 2 << 20         // read ahead from the disk, in bytes
	fetchCount    = 4 * uplinkBatch // and in messages: JetStream's client keeps room for as many, also while there are none
	uplinkBatch   = 1000            // messages in one batch to the hub: the most that JetStream takes
	uplinkBytes   = 1 << 20         // in one batch to the hub, unless one message is larger
	answerTimeout = 5 * time.Second
	freshness     = 10 * time.Second // an older answer is asked for again: the hub may have dropped all of a quiet device
	slowest       = 16 << 10         // bytes per second of the slowest link on which a batch is waited for
	minPause      = 10 * time.Millisecond
	maxPause      = 2 * time.Second // with the link known to be down, asking costs nothing but local work
)

// forwarder sends what waits to the hub, one batch at a time. It is the
// effects around a cursor.
type forwarder struct {
	outbox *Outbox
	cursor cursor
	window []waiting            // read from the disk, not settled, in order
	size   int                  // bytes in window
	seen   uint64               // newest sequence that was ever in window
	fetch  <-chan jetstream.Msg // of the read that is under way; nil when none is
	failed func() error         // why it ended
	count  int                  // most messages in the next batch; smaller after failures
	asked  time.Time            // when the hub last answered
	pause  time.Duration        // before the next try; 0 after success
}

// waiting is one message of the window.
type waiting struct {
	entry
	record record
	msg    jetstream.Msg
}

func (f *forwarder) run(ctx context.Context) {
	for ctx.Err() == nil {
		kicked := f.outbox.kick.next()
		if err := f.step(ctx); err != nil && ctx.Err() == nil {
			f.outbox.state.failed(err)
			f.wait(ctx, kicked)
		}
	}
}

// step sends one batch, and asks the hub how far it holds this device.
func (f *forwarder) step(ctx context.Context) error {
	if err := f.fill(ctx); err != nil {
		return err
	}
	kicked := f.outbox.kick.next() // a link that comes up from here on has not what is sent
	if !f.cursor.sure || time.Since(f.asked) > freshness {
		if err := f.ask(ctx, kicked, nil, 0); err != nil {
			return err
		}
	}
	batch := f.cursor.next(f.entries(), f.count, uplinkBytes)
	if len(batch) == 0 {
		return f.settle(ctx)
	}
	f.cursor.doubt()
	size, err := f.send(batch)
	if err != nil {
		return fmt.Errorf("send %d messages to the hub: %w", len(batch), err)
	}
	if err := f.ask(ctx, kicked, batch, size); err != nil {
		return err
	}
	return f.settle(ctx)
}

// fill reads on from the disk: it waits when nothing is at hand, and takes no
// more than what is there otherwise.
func (f *forwarder) fill(ctx context.Context) error {
	for len(f.window) < uplinkBatch && f.size < uplinkBytes {
		if f.fetch == nil {
			b, err := f.outbox.queue.consumer.Fetch(fetchCount, jetstream.FetchMaxBytes(fetchBytes), jetstream.FetchContext(ctx))
			if err != nil {
				return fmt.Errorf("read the outbox: %w", err)
			}
			f.fetch, f.failed = b.Messages(), b.Error
		}
		m, ended, err := f.take(ctx)
		if err != nil {
			return err
		}
		if m == nil && !ended {
			return nil
		}
		if m != nil {
			f.push(m)
		}
	}
	return nil
}

// take takes one message of the read that is under way; nil when there is none
// at hand, or when the read has ended.
func (f *forwarder) take(ctx context.Context) (m jetstream.Msg, ended bool, err error) {
	var ok bool
	if len(f.window) > 0 {
		select {
		case m, ok = <-f.fetch:
		default:
			return nil, false, nil
		}
	} else {
		select {
		case m, ok = <-f.fetch:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	if ok {
		return m, false, nil
	}
	err = f.failed()
	f.fetch = nil
	if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrMaxBytesExceeded) {
		err = nil
	}
	return nil, true, err
}

func (f *forwarder) push(m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil || meta.Sequence.Stream <= f.seen {
		return // delivered again: it is in the window, or settled
	}
	w := waiting{entry: entry{seq: meta.Sequence.Stream, size: len(m.Data())}, msg: m}
	if w.record, err = readRecord(m.Subject(), m.Headers()); err != nil {
		w.drop = twin.DroppedDamaged
		f.outbox.config.Warn(fmt.Errorf("message %d of the outbox is dropped: %w", w.seq, err))
	}
	f.window, f.size, f.seen = append(f.window, w), f.size+w.size, w.seq
}

// entries is the front of the window, as the cursor sees it.
func (f *forwarder) entries() []entry {
	out := make([]entry, min(len(f.window), uplinkBatch))
	for i := range out {
		w := &f.window[i]
		if w.drop == "" && f.outbox.clock.age(w.record.stored) > f.outbox.config.TTL {
			w.drop = twin.DroppedTTL
		}
		out[i] = w.entry
	}
	return out
}

// errNotStored says that the hub answers, and does not hold what it was sent: the
// batch was lost, or refused for a condition that did not hold, or for want of
// room.
var errNotStored = errors.New("the hub did not store it")

// ask asks the hub how far it holds this device; after a batch of size bytes,
// whether it holds that. It does not wait on once kicked is closed.
func (f *forwarder) ask(ctx context.Context, kicked <-chan struct{}, batch []span, size int) error {
	var body []byte
	if len(batch) > 0 {
		var err error
		if body, err = json.Marshal(twin.Await{Epoch: f.cursor.epoch, Seq: batch[len(batch)-1].to}); err != nil {
			return err
		}
	}
	limit, cancel := within(ctx, kicked, answerTimeout+twin.AwaitTime+time.Duration(size/slowest)*time.Second)
	defer cancel()
	answer, err := f.outbox.hub.RequestWithContext(limit, twin.UpResume(f.outbox.config.Device), body)
	if errors.Is(err, context.DeadlineExceeded) {
		f.count = max(1, len(batch)/2) // too much for this link, maybe
	}
	if err != nil {
		return fmt.Errorf("ask the hub how far it holds this device: %w", err)
	}
	r, err := twin.ReadResume(answer.Data)
	if err != nil {
		return fmt.Errorf("ask the hub how far it holds this device: %w", err)
	}
	if err := f.resumed(ctx, r); err != nil || len(batch) == 0 {
		return err
	}
	if f.cursor.settled < batch[len(batch)-1].to {
		f.count = max(1, len(batch)/2)
		return fmt.Errorf("send %d messages to the hub: %w", len(batch), errNotStored)
	}
	f.count, f.pause = min(f.count*2, uplinkBatch), 0
	f.outbox.state.settle(batch)
	return nil
}

// resumed takes the hub's answer.
func (f *forwarder) resumed(ctx context.Context, r twin.Resume) error {
	err := f.cursor.resumed(r, max(f.seen, f.outbox.state.top()))
	if errors.Is(err, errBehind) {
		f.outbox.config.Warn(fmt.Errorf("%w (%d of epoch %s): starting a new epoch", err, r.Seq, r.Epoch))
		if err := f.outbox.queue.restart(ctx); err != nil {
			return err
		}
		f.cursor.epoch = f.outbox.queue.epoch
		err = f.cursor.resumed(r, f.seen)
	}
	f.asked = time.Now()
	f.outbox.state.resumed(f.cursor.epoch, f.cursor.settled)
	return err
}

// send publishes a batch under the cursor's condition. Nothing answers.
func (f *forwarder) send(batch []span) (size int, err error) {
	msgs, at := make([]*nats.Msg, len(batch)), 0
	for i, b := range batch {
		if b.reason != "" {
			msgs[i], err = droppedMessage(f.outbox.config.Device, f.cursor.epoch, b)
			if err != nil {
				return 0, err
			}
			continue
		}
		for f.window[at].seq != b.from {
			at++
		}
		w := f.window[at]
		msgs[i] = uplinked(f.outbox.config.Device, f.cursor.epoch, w.seq, w.record, w.msg.Headers(), w.msg.Data())
		size += w.size
	}
	h := msgs[0].Header
	h[headerExpectLast] = []string{strconv.FormatUint(f.cursor.last, 10)}
	h[headerExpectFilter] = []string{twin.Up(f.outbox.config.Device) + ".>"}
	join(msgs)
	for _, m := range msgs {
		if err := f.outbox.hub.PublishMsg(m); err != nil {
			return 0, err
		}
	}
	return size, nil
}

func droppedMessage(device, epoch string, b span) (*nats.Msg, error) {
	data, err := json.Marshal(twin.Dropped{Epoch: epoch, From: b.from, To: b.to, Reason: b.reason})
	if err != nil {
		return nil, err
	}
	return &nats.Msg{Subject: twin.UpDropped(device), Data: data, Header: nats.Header{
		twin.HeaderEpoch: {epoch},
		twin.HeaderSeq:   {strconv.FormatUint(b.to, 10)},
		twin.HeaderTime:  {time.Now().UTC().Format(time.RFC3339Nano)},
	}}, nil
}

// settle lets go of what the hub has.
func (f *forwarder) settle(ctx context.Context) error {
	n := 0
	for n < len(f.window) && f.window[n].seq <= f.cursor.settled {
		f.size -= f.window[n].size
		n++
	}
	if n == 0 {
		return nil
	}
	failpoint.Reach("outbox.acknowledged")
	err := f.window[n-1].msg.Ack()
	f.window = append([]waiting(nil), f.window[n:]...)
	if err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	return f.outbox.queue.remove(ctx, f.cursor.settled)
}

// wait waits before the next try: longer each time, not at all when kicked.
func (f *forwarder) wait(ctx context.Context, kicked <-chan struct{}) {
	f.pause = min(max(f.pause*2, minPause), maxPause)
	t := time.NewTimer(f.pause/2 + rand.N(f.pause/2+1))
	defer t.Stop()
	select {
	case <-t.C:
	case <-kicked:
		f.pause = 0
	case <-ctx.Done():
	}
}
