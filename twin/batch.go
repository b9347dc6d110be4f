package twin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Position is a place in a lane: everything up to Seq of that life of the
// outbox. The zero value is the place before everything.
type Position struct {
	Epoch string `json:"epoch,omitempty"` // names one life of a lane's queue on the device
	Seq   uint64 `json:"seq,omitempty"`   // in it
}

// Batch is what a device sends to the hub of one lane, as one message on
// UpMessages: what follows Prev, without a hole. The hub stores all of it or
// nothing, and answers a Standing: where the lane stands now. One with no items is
// the question alone.
//
// The hub stores it if the lane stands at Prev; or, where Prev and the lane's
// place are both of Epoch, the part of it behind that place. So a batch that comes
// twice, or late, is stored once. That part is of whole items: if the place is within
// a range, nothing is stored. So a range that the lane is seen to have passed was
// stored as it was sent, and the device knows what comes in the lane Late.
//
// With another epoch than Prev's, From is where that epoch begins: what a queue
// holds when it gets a new epoch keeps its sequences. In a lane Late, From may lie
// beyond Prev of the same epoch: what is between came in the lane itself.
type Batch struct {
	Lane  string   // the route's name; Late of it for what waited
	Prev  Position // where the device believes that the lane stands
	Epoch string   // of the items
	From  uint64   // sequence of the first item
	Items []Item
}

// Item is one message, or a range of sequences that stands for messages that do
// not come.
type Item struct {
	Count  uint64 // sequences that it stands for; 1 for a message
	Reason string // one of the Lost constants; empty: it is a message

	Module string      // who sent it
	Name   string      // under this name
	Time   time.Time   // when the device stored it, by the device's clock, which may be wrong
	Header nats.Header // the sender's; at most MaxHeaderValues values of MaxHeaders bytes
	Body   []byte      // at most MaxBody bytes
}

// To is the sequence of the last item; From-1 when there is none.
func (b Batch) To() uint64 {
	to := b.From - 1
	for _, i := range b.Items {
		to += i.Count
	}
	return to
}

// Bounds of messages. One message with as much of everything as it may have fits
// into a batch, and a batch below NATS's default max_payload of 1 MiB.
const (
	MaxBody         = 1<<20 - 16<<10 // bytes of a message's body
	MaxHeaders      = 8 << 10        // bytes of the names and values of its headers
	MaxHeaderValues = 64             // header values of it
	MaxBatch        = 1<<20 - 4<<10  // bytes of an encoded batch
	MaxItems        = 1000           // of a batch: the most that JetStream stores as one
)

// What an item of a batch is.
const (
	kindMessage = 0
	kindRange   = 1
	batchFormat = 1 // the first byte of a batch
)

// Encode writes the batch:
//
//	format lane prev.epoch prev.seq epoch from n item…
//	item   0 module name time n (key value)… body
//	       1 count reason
//
// Numbers are varints, time is in nanoseconds since 1970; strings are their length
// and their bytes.
func (b Batch) Encode() []byte {
	var items []byte
	for _, i := range b.Items {
		items = i.Append(items)
	}
	return b.Frame(len(b.Items), items)
}

// Frame is Encode for n items that are encoded already; Items is not looked at.
func (b Batch) Frame(n int, items []byte) []byte {
	out := make([]byte, 0, 64+len(b.Lane)+len(b.Prev.Epoch)+len(b.Epoch)+len(items))
	out = append(out, batchFormat)
	out = appendText(out, b.Lane)
	out = appendText(out, b.Prev.Epoch)
	out = binary.AppendUvarint(out, b.Prev.Seq)
	out = appendText(out, b.Epoch)
	out = binary.AppendUvarint(out, b.From)
	out = binary.AppendUvarint(out, uint64(n))
	return append(out, items...)
}

// Size is at least the bytes that the item takes in an encoded batch, and little
// more.
func (i Item) Size() int {
	size := 32 + len(i.Reason) + len(i.Module) + len(i.Name) + len(i.Body)
	for key, values := range i.Header {
		for _, v := range values {
			size += len(key) + len(v) + 4
		}
	}
	return size
}

// Append appends the encoded item. Encoded items stand one after the other with
// nothing in between.
func (i Item) Append(out []byte) []byte {
	if i.Reason != "" {
		out = append(out, kindRange)
		out = binary.AppendUvarint(out, i.Count)
		return appendText(out, i.Reason)
	}
	out = append(out, kindMessage)
	out = appendText(out, i.Module)
	out = appendText(out, i.Name)
	out = binary.AppendVarint(out, i.Time.UnixNano())
	n := 0
	for _, values := range i.Header {
		n += len(values)
	}
	out = binary.AppendUvarint(out, uint64(n))
	for key, values := range i.Header {
		for _, v := range values {
			out = appendText(appendText(out, key), v)
		}
	}
	return appendText(out, i.Body)
}

func appendText[T string | []byte](out []byte, s T) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

// ReadBatch reads what Encode writes. Bodies are parts of data. What it accepts
// is within the bounds, and without a hole; whether names are names, and headers
// are allowed, is for the receiver to say.
func ReadBatch(data []byte) (Batch, error) {
	if len(data) > MaxBatch {
		return Batch{}, fmt.Errorf("read batch: %d bytes are more than the %d that it may have", len(data), MaxBatch)
	}
	r := reader{left: data}
	if r.byte() != batchFormat {
		return Batch{}, errors.New("read batch: not a batch of this format")
	}
	var b Batch
	b.Lane = string(r.text(maxToken))
	b.Prev = Position{string(r.text(maxToken)), r.uint()}
	b.Epoch, b.From = string(r.text(maxToken)), r.uint()
	n := r.uint()
	if n > MaxItems {
		return Batch{}, fmt.Errorf("read batch: %d items are more than the %d that it may have", n, MaxItems)
	}
	items, err := r.items(int(n), b.From)
	if err != nil {
		return Batch{}, fmt.Errorf("read batch: %w", err)
	}
	b.Items = items
	return b, nil
}

// ReadItems reads n encoded items, the first of which has the sequence from.
func ReadItems(data []byte, n int, from uint64) ([]Item, error) {
	if n < 0 || n > MaxItems {
		return nil, fmt.Errorf("read items: want at most %d, not %d", MaxItems, n)
	}
	r := reader{left: data}
	items, err := r.items(n, from)
	if err != nil {
		return nil, fmt.Errorf("read items: %w", err)
	}
	return items, nil
}

// maxToken bounds lanes, epochs, names and reasons, in bytes.
const maxToken = 128

// reader takes a batch apart. Once failed it returns nothing.
type reader struct {
	left   []byte
	failed bool
}

func (r *reader) byte() byte {
	if len(r.left) == 0 {
		r.failed = true
		return 0xff
	}
	b := r.left[0]
	r.left = r.left[1:]
	return b
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.left)
	if r.failed || n <= 0 {
		r.failed = true
		return 0
	}
	r.left = r.left[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.left)
	if r.failed || n <= 0 {
		r.failed = true
		return 0
	}
	r.left = r.left[n:]
	return v
}

func (r *reader) text(most uint64) []byte {
	n := r.uint()
	if r.failed || n > most || n > uint64(len(r.left)) {
		r.failed = true
		return nil
	}
	s := r.left[:n:n]
	r.left = r.left[n:]
	return s
}

// items reads n items to the end of the data.
func (r *reader) items(n int, from uint64) ([]Item, error) {
	var out []Item
	for range n {
		i := r.item()
		if r.failed {
			break
		}
		if from == 0 || i.Count == 0 || i.Count > maxVersion || from > maxVersion {
			return nil, fmt.Errorf("%d sequences from %d on is no range", i.Count, from)
		}
		out, from = append(out, i), from+i.Count
	}
	if r.failed || len(r.left) > 0 {
		return nil, errors.New("cut off, or longer than it says")
	}
	return out, nil
}

func (r *reader) item() (i Item) {
	switch r.byte() {
	case kindRange:
		i.Count, i.Reason = r.uint(), string(r.text(maxToken))
		r.failed = r.failed || i.Reason == ""
	case kindMessage:
		i.Count, i.Module, i.Name = 1, string(r.text(maxToken)), string(r.text(maxToken))
		i.Time = time.Unix(0, r.int()).UTC()
		n := r.uint()
		r.failed = r.failed || n > MaxHeaderValues
		for range n {
			if r.failed {
				return i
			}
			if i.Header == nil {
				i.Header = nats.Header{}
			}
			key := string(r.text(MaxHeaders))
			i.Header[key] = append(i.Header[key], string(r.text(MaxHeaders)))
		}
		i.Body = r.text(MaxBody)
	default:
		r.failed = true
	}
	return i
}
