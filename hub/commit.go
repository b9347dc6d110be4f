package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/twin"
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

// commit is what the hub stores as one: all of it, or nothing. The first message
// of each lane carries the condition that the lane still stands where this hub
// believes. (Of a batch that does not meet a condition the server stores nothing,
// and does not say which one it was.)
type commit struct {
	messages []*nats.Msg
	parts    map[string]*part // by twin.Lane
}

// part is a lane's part of a commit.
type part struct {
	at     twin.Position // where the lane stands with it
	newest int           // index of its last message; -1 when it has none
}

// add adds what is new of a delivery, whose lane stands at p before the commit.
func (c *commit) add(d *delivery, p place) {
	l := c.parts[d.lane]
	if l == nil {
		if c.parts == nil {
			c.parts = map[string]*part{}
		}
		l = &part{at: p.at, newest: -1}
		c.parts[d.lane] = l
	}
	fresh := d.behind(l.at)
	if len(fresh) == 0 {
		return
	}
	if l.newest < 0 {
		h := fresh[0].Header
		h[headerExpectLast] = []string{strconv.FormatUint(p.last, 10)}
		h[headerExpectFilter] = []string{d.lane + ".>"}
	}
	c.messages = append(c.messages, fresh...)
	l.at, l.newest = twin.Position{Epoch: d.batch.Epoch, Seq: d.batch.To()}, len(c.messages)-1
}

// again takes off what an earlier commit put on the messages.
func (d *delivery) again() {
	for _, m := range d.messages {
		for _, key := range []string{headerBatch, headerBatchSeq, headerBatchCommit, headerExpectLast, headerExpectFilter} {
			delete(m.Header, key)
		}
	}
}

// publish stores the messages and returns the sequence of the last in the stream;
// those before it have the ones before. A *jetstream.APIError says that nothing
// was stored; after any other error nobody knows.
func (c *commit) publish(ctx context.Context, nc *nats.Conn) (uint64, error) {
	n := len(c.messages)
	if n > 1 {
		id := []string{nuid.Next()}
		for i, m := range c.messages {
			m.Header[headerBatch] = id
			m.Header[headerBatchSeq] = []string{strconv.Itoa(i + 1)}
		}
		c.messages[n-1].Header[headerBatchCommit] = []string{"1"}
	}
	for _, m := range c.messages[:n-1] {
		if err := nc.PublishMsg(m); err != nil {
			return 0, err
		}
	}
	failpoint.Reach("hub.storing")
	answer, err := nc.RequestMsgWithContext(ctx, c.messages[n-1])
	if err != nil {
		return 0, err
	}
	failpoint.Reach("hub.stored")
	return readAck(answer.Data, n)
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
	if ack.Stream != StreamMessages || ack.Seq < uint64(count) || count > 1 && ack.Count != count {
		return 0, fmt.Errorf("read acknowledgement: %d messages up to %d of stream %q: %d were sent", ack.Count, ack.Seq, ack.Stream, count)
	}
	return ack.Seq, nil
}
