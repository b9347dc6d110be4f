package hub

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// StreamMessages holds the messages of all devices, and what does not come of
	// them: see twin.LaneOut and twin.LaneLost. It is in account HUB, where no
	// device is: see accounts.
	StreamMessages = "MESSAGES"
	// BucketTwins holds the newest document of every twin.
	BucketTwins = "twins"
)

// openStreams makes the stream and the bucket, or brings those that are there
// to the configured bounds.
func (h *Hub) openStreams(ctx context.Context) error {
	s := h.config.Streams
	_, err := h.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:               StreamMessages,
		Description:        "messages of all devices, and what does not come of them",
		Subjects:           []string{"messages.>"},
		Storage:            jetstream.FileStorage,
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardOld,
		MaxBytes:           int64(s.MaxBytes),
		Replicas:           s.Replicas,
		AllowAtomicPublish: true,
		AllowDirect:        true,
	})
	if err != nil {
		return fmt.Errorf("stream %s with %d bytes: %w", StreamMessages, s.MaxBytes, err)
	}
	h.twins, err = h.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket:      BucketTwins,
		Description: "newest document of every device and module twin",
		History:     1,
		Storage:     jetstream.FileStorage,
		MaxBytes:    maxTwins,
		Replicas:    s.Replicas,
	})
	if err != nil {
		return fmt.Errorf("bucket %s: %w", BucketTwins, err)
	}
	return nil
}
