package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName   = "OUTBOX"
	consumerName = "forwarder" // and, where its files were damaged, with a number up to maxConsumers
	maxConsumers = 8
	epochKey     = "tidemark.epoch" // in the stream's metadata

	// never is the time after which JetStream may deliver a message again: the
	// forwarder keeps what it has not sent, and starts over when it restarts.
	never = 100 * 365 * 24 * time.Hour

	// maxUnsettled is the most messages that the forwarder may hold in memory.
	maxUnsettled = 8192
)

// queue is the stream on the leaf with its only consumer. What the consumer
// has acknowledged is settled; it is removed in strides, or earlier by the
// bound.
type queue struct {
	js       jetstream.JetStream
	stream   jetstream.Stream
	consumer jetstream.Consumer
	epoch    string
	newest   uint64 // sequence of the newest message when opened
	settled  uint64 // everything up to here was settled when opened
	purged   uint64 // everything up to here was removed by remove
}

// openQueue makes the stream or takes up the one that is there. The leaf
// syncs every write (sync_interval: always), so what is acknowledged is on
// disk. The bound drops the oldest: after a long outage the newest messages say
// most, and a module need not know what to do about a full disk.
func openQueue(ctx context.Context, nc *nats.Conn, maxBytes int64) (*queue, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	q := &queue{js: js}
	if err := q.openStream(ctx, maxBytes); err != nil {
		return nil, err
	}
	if err := q.openConsumer(ctx); err != nil {
		return nil, err
	}
	info := q.stream.CachedInfo().State
	at := q.consumer.CachedInfo().AckFloor.Stream
	q.newest, q.settled = info.LastSeq, at
	if at > info.LastSeq {
		// The disk lost the end of the stream: its sequences will be given again.
		q.settled = info.LastSeq
		return q, q.restart(ctx)
	}
	return q, nil
}

func streamConfig(maxBytes int64, epoch string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               streamName,
		Description:        "messages of modules that wait for the hub",
		Subjects:           []string{stored + ".>"},
		Storage:            jetstream.FileStorage,
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardOld,
		MaxBytes:           maxBytes,
		MaxMsgSize:         1 << 20,
		MaxConsumers:       -1,
		AllowAtomicPublish: true,
		Metadata:           map[string]string{epochKey: epoch},
	}
}

func (q *queue) openStream(ctx context.Context, maxBytes int64) error {
	s, err := q.js.Stream(ctx, streamName)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		q.epoch = randomID()
	case err != nil:
		return fmt.Errorf("stream %s: %w", streamName, err)
	default:
		q.epoch = s.CachedInfo().Config.Metadata[epochKey]
		if q.epoch == "" || len(q.epoch) > 64 {
			q.epoch = randomID()
		}
	}
	q.stream, err = q.js.CreateOrUpdateStream(ctx, streamConfig(maxBytes, q.epoch))
	if err != nil {
		return fmt.Errorf("stream %s with %d bytes: %w", streamName, maxBytes, err)
	}
	return nil
}

// openConsumer makes the consumer deliver again what it had delivered and was
// not acknowledged: the one who held it is gone. JetStream neither takes up nor
// deletes a consumer whose files are damaged, so the next name takes its place: it
// begins at the oldest message, and the hub says what it has of them.
func (q *queue) openConsumer(ctx context.Context) (err error) {
	for n, name := 1, consumerName; n <= maxConsumers; name, n = fmt.Sprint(consumerName, "-", n), n+1 {
		q.consumer, err = q.stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable:       name,
			AckPolicy:     jetstream.AckAllPolicy,
			AckWait:       never,
			MaxAckPending: maxUnsettled,
			DeliverPolicy: jetstream.DeliverAllPolicy,
		})
		if refused, ok := errors.AsType[*jetstream.APIError](err); ok && refused.ErrorCode == cannotCreate {
			err = fmt.Errorf("consumer %s: %w", name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("consumer %s: %w", name, err)
		}
		if info := q.consumer.CachedInfo(); info.NumAckPending == 0 {
			return nil
		}
		if _, err := q.stream.ResetConsumer(ctx, name); err != nil {
			return fmt.Errorf("consumer %s: start over: %w", name, err)
		}
		return nil
	}
	return err
}

// cannotCreate is nats-server's JSConsumerCreateErrF.
const cannotCreate jetstream.ErrorCode = 10012

// restart gives the outbox a new epoch, because its sequences no longer name
// the messages that the hub has under them.
func (q *queue) restart(ctx context.Context) error {
	config := q.stream.CachedInfo().Config
	config.Metadata = map[string]string{epochKey: randomID()}
	s, err := q.js.UpdateStream(ctx, config)
	if err != nil {
		return fmt.Errorf("new epoch: %w", err)
	}
	q.stream, q.epoch = s, config.Metadata[epochKey]
	return nil
}

// stride is how many settled messages are removed at a time: removing costs a
// write, and the bound would remove them anyway.
const stride = 4096

// remove removes what is settled, once that is worth the write.
func (q *queue) remove(ctx context.Context, settled uint64) error {
	if settled < q.purged+stride {
		return nil
	}
	if err := q.stream.Purge(ctx, jetstream.WithPurgeSequence(settled+1)); err != nil {
		return fmt.Errorf("remove settled messages: %w", err)
	}
	q.purged = settled
	return nil
}
