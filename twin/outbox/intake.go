package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/twin"
)

const (
	maxBatch      = 500     // messages in one atomic batch
	minBatch      = 16      // fewer are stored each by itself: the server makes files for a batch, which costs as much as syncing so many
	maxBatchBytes = 4 << 20 // bytes in one batch to the disk

	// What may wait for the disk, in memory. Beyond it messages are lost, as NATS
	// does; no answer tells the module.
	maxWaiting      = 32 << 10 // messages
	maxWaitingBytes = 32 << 20 // bytes

	storeTimeout = 30 * time.Second // a disk that takes longer is answered as failed
)

// intake takes modules' messages, stores what waits in one go and answers.
// While one batch is synced to the disk the next one gathers; a message that
// comes alone is stored alone, at once.
type intake struct {
	outbox  *Outbox
	waiting chan *nats.Msg
}

func (in *intake) subscribe(ctx context.Context) error {
	subject := twin.Prefix(in.outbox.config.Device, "") + ".modules.*.out.>"
	sub, err := in.outbox.local.Subscribe(subject, func(m *nats.Msg) {
		select {
		case in.waiting <- m:
		case <-ctx.Done():
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	if err := sub.SetPendingLimits(maxWaiting, maxWaitingBytes); err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	context.AfterFunc(ctx, func() { sub.Unsubscribe() })
	in.outbox.state.overrun = func() int {
		n, _ := sub.Dropped()
		return n
	}
	return in.outbox.local.FlushWithContext(flushContext(ctx))
}

// flushContext gives ctx a deadline, which Flush demands.
func flushContext(ctx context.Context) context.Context {
	c, cancel := context.WithTimeout(ctx, storeTimeout)
	context.AfterFunc(c, cancel)
	return c
}

func (in *intake) run(ctx context.Context) {
	for {
		batch := in.gather(ctx)
		if batch == nil {
			return
		}
		in.store(ctx, batch)
	}
}

// gather waits for one message and takes what else is there; nil when ctx ended.
func (in *intake) gather(ctx context.Context) []*nats.Msg {
	var batch []*nats.Msg
	select {
	case m := <-in.waiting:
		batch = append(batch, m)
	case <-ctx.Done():
		return nil
	}
	for size := len(batch[0].Data); len(batch) < maxBatch && size < maxBatchBytes; {
		select {
		case m := <-in.waiting:
			batch, size = append(batch, m), size+len(m.Data)
		default:
			return batch
		}
	}
	return batch
}

// store stores a batch and answers each of its messages. What cannot be stored
// is answered by itself and does not hold up the others.
func (in *intake) store(ctx context.Context, batch []*nats.Msg) {
	now, wall := in.outbox.clock.stamp(), time.Now()
	records, senders := make([]*nats.Msg, 0, len(batch)), make([]*nats.Msg, 0, len(batch))
	for _, m := range batch {
		r, err := in.record(m, now, wall)
		if err != nil {
			in.refuse(m, err)
			continue
		}
		records, senders = append(records, r), append(senders, m)
	}
	if len(records) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if len(records) < minBatch {
		in.storeEach(ctx, records, senders)
	} else {
		in.storeBatch(ctx, records, senders)
	}
}

func (in *intake) storeBatch(ctx context.Context, records, senders []*nats.Msg) {
	last, err := publish(ctx, in.outbox.local, records)
	if err != nil {
		for _, m := range senders {
			in.refuse(m, storeError(err))
		}
		in.outbox.config.Warn(fmt.Errorf("store %d messages: %w", len(records), err))
		return
	}
	in.outbox.state.tookIn(last, len(records))
	for i, m := range senders {
		in.answer(m, stamped{Seq: last - uint64(len(senders)-1-i)})
	}
}

// storeEach sends all records on their way, and then waits for each.
func (in *intake) storeEach(ctx context.Context, records, senders []*nats.Msg) {
	futures := make([]jetstream.PubAckFuture, len(records))
	for i, r := range records {
		f, err := in.outbox.queue.js.PublishMsgAsync(r)
		if err != nil {
			in.fail(senders[i], err)
			continue
		}
		futures[i] = f
	}
	for i, f := range futures {
		if f == nil {
			continue
		}
		select {
		case ack := <-f.Ok():
			failpoint.Reach("outbox.stored")
			in.outbox.state.tookIn(ack.Sequence, 1)
			in.answer(senders[i], stamped{Seq: ack.Sequence})
		case err := <-f.Err():
			in.fail(senders[i], err)
		case <-ctx.Done():
			in.fail(senders[i], ctx.Err())
		}
	}
}

func (in *intake) fail(m *nats.Msg, err error) {
	in.refuse(m, storeError(err))
	in.outbox.config.Warn(fmt.Errorf("store a message: %w", err))
}

func (in *intake) record(m *nats.Msg, now stamp, wall time.Time) (*nats.Msg, error) {
	module, name, err := readIntake(in.outbox.config.Device, m.Subject)
	if err != nil {
		return nil, &twin.Error{Code: twin.CodeMalformed, Message: err.Error()}
	}
	if m.Reply != "" && !twin.MayAnswer(in.outbox.config.Device, module, m.Reply) {
		m.Reply = ""
		return nil, &twin.Error{Code: twin.CodeRefused, Message: "the reply subject is not the module's own"}
	}
	return newRecord(module, name, m, now, wall)
}

// stamped is the answer to a message that is on disk.
type stamped struct {
	Seq   uint64      `json:"seq,omitempty"` // in this epoch of the outbox
	Error *twin.Error `json:"error,omitempty"`
}

func (in *intake) refuse(m *nats.Msg, err error) {
	in.outbox.state.refuse(err)
	var refusal *twin.Error
	if !errors.As(err, &refusal) {
		refusal = &twin.Error{Code: twin.CodeFailed, Message: err.Error()}
	}
	in.answer(m, stamped{Error: refusal})
}

func (in *intake) answer(m *nats.Msg, a stamped) {
	if m.Reply == "" {
		return
	}
	data, err := json.Marshal(a)
	if err != nil {
		return // numbers and strings do marshal
	}
	if err := in.outbox.local.Publish(m.Reply, data); err != nil {
		in.outbox.config.Warn(fmt.Errorf("answer %s: %w", m.Subject, err))
	}
}

func storeError(err error) *twin.Error {
	if noRoom(err) {
		return &twin.Error{Code: twin.CodeNoSpace, Message: "no room on the device's disk: " + err.Error()}
	}
	return &twin.Error{Code: twin.CodeFailed, Message: "not stored for certain: " + err.Error()}
}
