package outbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers of JetStream's atomic batches (nats-server ADR-50) and of its
// optimistic concurrency.
const (
	headerBatch        = "Nats-Batch-Id"
	headerBatchSeq     = "Nats-Batch-Sequence"
	headerBatchCommit  = "Nats-Batch-Commit"
	headerExpectLast   = "Nats-Expected-Last-Subject-Sequence"
	headerExpectFilter = "Nats-Expected-Last-Subject-Sequence-Subject"
)

// maxAck bounds JetStream's acknowledgement, in bytes.
const maxAck = 16 << 10

// publish stores msgs in the stream that takes their subjects: all of them, in
// order and without another between them, or none. It returns the sequence of
// the last. A *jetstream.APIError says that nothing was stored; after any other
// error nobody knows.
func publish(ctx context.Context, nc *nats.Conn, msgs []*nats.Msg) (uint64, error) {
	n := len(msgs)
	join(msgs)
	for _, m := range msgs[:n-1] {
		if err := nc.PublishMsg(m); err != nil {
			return 0, err
		}
	}
	answer, err := nc.RequestMsgWithContext(ctx, msgs[n-1])
	if err != nil {
		return 0, err
	}
	return readAck(answer.Data, n)
}

// join makes one atomic batch of msgs.
func join(msgs []*nats.Msg) {
	n := len(msgs)
	if n == 1 {
		return
	}
	id := randomID()
	for i, m := range msgs {
		m.Header[headerBatch] = []string{id}
		m.Header[headerBatchSeq] = []string{strconv.Itoa(i + 1)}
	}
	msgs[n-1].Header[headerBatchCommit] = []string{"1"}
}

func readAck(data []byte, count int) (uint64, error) {
	var ack struct {
		Stream string              `json:"stream"`
		Seq    uint64              `json:"seq"`
		Count  int                 `json:"count"`
		Error  *jetstream.APIError `json:"error"`
	}
	if len(data) > maxAck {
		return 0, fmt.Errorf("read acknowledgement: %d bytes are more than it has", len(data))
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return 0, fmt.Errorf("read acknowledgement: %w", err)
	}
	if ack.Error != nil {
		return 0, ack.Error
	}
	if ack.Seq < uint64(count) || count > 1 && ack.Count != count {
		return 0, fmt.Errorf("read acknowledgement: %d messages up to %d of stream %q: %d were sent", ack.Count, ack.Seq, ack.Stream, count)
	}
	return ack.Seq, nil
}

func randomID() string {
	var b [12]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}
