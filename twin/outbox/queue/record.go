package queue

import (
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

// Record is some messages that were stored together. The disk has all of it or
// nothing.
type Record struct {
	Epoch  string // of the queue when it was read
	From   uint64 // sequence of its first message
	Count  int    // messages in it, at most twin.MaxItems
	Stored Stamp  // when
	Items  []byte // of twin.Item.Append, one after the other; at most MaxRecord bytes
}

// Last is the sequence of its last message.
func (r Record) Last() uint64 { return r.From + uint64(r.Count) - 1 }

// MaxRecord is the most bytes of Record.Items: with the frame of a batch around it, it
// is within twin.MaxBatch.
const MaxRecord = twin.MaxBatch - 512

// Headers of a record in the stream.
const (
	headerFrom  = "Tidemark-Seq"   // Record.From
	headerCount = "Tidemark-Count" // Record.Count
	headerBoot  = "Tidemark-Boot"  // Record.Stored.Boot
	headerUp    = "Tidemark-Up"    // Record.Stored.Up, in nanoseconds
)

// check says whether it may be stored.
func (r Record) check() error {
	if r.Count < 1 || r.Count > twin.MaxItems || len(r.Items) == 0 || len(r.Items) > MaxRecord {
		return fmt.Errorf("%d messages in %d bytes are not within a record: 1 to %d in at most %d", r.Count, len(r.Items), twin.MaxItems, MaxRecord)
	}
	return nil
}

// message is the record as it is stored.
func (r Record) message(subject string) *nats.Msg {
	return &nats.Msg{Subject: subject, Data: r.Items, Header: nats.Header{
		headerFrom:  {strconv.FormatUint(r.From, 10)},
		headerCount: {strconv.Itoa(r.Count)},
		headerBoot:  {r.Stored.Boot},
		headerUp:    {strconv.FormatInt(int64(r.Stored.Up), 10)},
	}}
}

// maxSeq bounds sequences: beyond it something is damaged.
const maxSeq = 1<<53 - 1

// readRecord reads what the disk gave.
func readRecord(h nats.Header, items []byte) (Record, error) {
	from, err := strconv.ParseUint(h.Get(headerFrom), 10, 64)
	if err != nil || from == 0 || from > maxSeq {
		return Record{}, fmt.Errorf("read record: %s %q is no sequence", headerFrom, h.Get(headerFrom))
	}
	count, err := strconv.Atoi(h.Get(headerCount))
	if err != nil {
		return Record{}, fmt.Errorf("read record: %s %q is no number", headerCount, h.Get(headerCount))
	}
	up, err := strconv.ParseInt(h.Get(headerUp), 10, 64)
	if err != nil || up < 0 {
		return Record{}, fmt.Errorf("read record: %s %q is no time since boot", headerUp, h.Get(headerUp))
	}
	r := Record{From: from, Count: count, Stored: Stamp{h.Get(headerBoot), time.Duration(up)}, Items: items}
	if err := r.check(); err != nil {
		return Record{}, fmt.Errorf("read record: %w", err)
	}
	return r, nil
}
