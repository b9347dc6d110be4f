package hub

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/tidemark-edge/tidemark/twin"
)

// Headers of JetStream's atomic batches (nats-server ADR-50) and of its
// optimistic concurrency.
const (
	headerBatch        = "Nats-Batch-Id"
	headerBatchSeq     = "Nats-Batch-Sequence"
	headerBatchCommit  = "Nats-Batch-Commit"
	headerExpectNewest = "Nats-Expected-Last-Sequence"
	headerExpectLast   = "Nats-Expected-Last-Subject-Sequence"
	headerExpectFilter = "Nats-Expected-Last-Subject-Sequence-Subject"
)

// maxAck bounds JetStream's acknowledgement, in bytes.
const maxAck = 16 << 10

// commit is what the hub stores as one: all of it, or nothing. It carries the
// condition that lanes still stand where this hub believes. (Of a batch that does not
// meet a condition the server stores nothing, and does not say which one it was.)
type commit struct {
	deliveries []*delivery
	messages   []*nats.Msg
	parts      map[string]*part // by twin.Lane
	id         string           // of the server's batch
	base       uint64           // sequence of the stream's newest message before it, as far as is known; 0 when it is not
	late       <-chan time.Time // when the acknowledgement should have come; set once the last message is sent
}

// part is a lane's part of a commit.
type part struct {
	before place         // where the lane stands without it
	at     twin.Position // where the lane stands with it
	oldest int           // index of its first message
	newest int           // of its last; -1 when it has none
}

// place is where a lane will stand when the commit is stored; flies says whether it
// is in it. There may be no commit.
func (c *commit) place(lane string) (p place, flies bool) {
	if c == nil {
		return place{}, false
	}
	l := c.parts[lane]
	if l == nil || l.newest < 0 {
		return place{}, false
	}
	return place{at: l.at, last: c.base + uint64(l.newest) + 1}, true
}

// last is the message that has the others stored.
func (c *commit) last() *nats.Msg { return c.messages[len(c.messages)-1] }

// add adds what is new of a delivery, whose lane stands at p before the commit.
func (c *commit) add(d *delivery, p place) {
	l := c.parts[d.lane]
	if l == nil {
		l = &part{before: p, at: p.at, newest: -1}
		c.parts[d.lane] = l
	}
	d.again()
	fresh := d.behind(l.at)
	if len(fresh) == 0 {
		return
	}
	if l.newest < 0 {
		l.oldest = len(c.messages)
	}
	c.messages = append(c.messages, fresh...)
	l.at, l.newest = twin.Position{Epoch: d.batch.Epoch, Seq: d.batch.To()}, len(c.messages)-1
}

// condition has the server refuse the commit where the hub is wrong: about anything,
// when whole says that what it knows of all lanes was so when the stream had base as
// its newest message; or about a lane of it. For that the server reads the lane's
// newest message, and then holds some seconds of the stream in memory.
func (c *commit) condition(whole bool) {
	if len(c.messages) == 0 {
		return
	}
	if whole {
		c.messages[0].Header[headerExpectNewest] = []string{strconv.FormatUint(c.base, 10)}
		return
	}
	for lane, l := range c.parts {
		if l.newest >= 0 {
			h := c.messages[l.oldest].Header
			h[headerExpectLast] = []string{strconv.FormatUint(l.before.last, 10)}
			h[headerExpectFilter] = []string{lane + ".>"}
		}
	}
}

// again takes off what an earlier commit put on the messages.
func (d *delivery) again() {
	if !d.staged {
		d.staged = true
		return
	}
	for _, m := range d.messages {
		m.Reply = ""
		for _, key := range []string{headerBatch, headerBatchSeq, headerBatchCommit, headerExpectNewest, headerExpectLast, headerExpectFilter} {
			delete(m.Header, key)
		}
	}
}

// stage sends all messages but the last, which the server keeps until that comes.
func (c *commit) stage(nc *nats.Conn) error {
	n := len(c.messages)
	if n < 2 {
		return nil
	}
	c.id = nuid.Next()
	id := []string{c.id}
	for i, m := range c.messages {
		m.Header[headerBatch] = id
		m.Header[headerBatchSeq] = []string{strconv.Itoa(i + 1)}
	}
	c.last().Header[headerBatchCommit] = []string{"1"}
	for _, m := range c.messages[:n-1] {
		if err := nc.PublishMsg(m); err != nil {
			return err
		}
	}
	return nil
}

// abandon has the server forget what was staged, by a hole in it. It would by
// itself, after a while.
func (c *commit) abandon(nc *nats.Conn) {
	if n := len(c.messages); n > 1 {
		_ = nc.PublishMsg(&nats.Msg{Subject: c.last().Subject, Header: nats.Header{
			headerBatch: {c.id}, headerBatchSeq: {strconv.Itoa(n + 1)},
		}})
	}
}

// readAck reads the sequence of the last of so many messages in the stream; those
// before it have the ones before. A *jetstream.APIError says that nothing was stored;
// after any other error nobody knows.
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
