package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// Message is what a hub holds of one message of a module, or of a range of
// messages that do not come.
type Message struct {
	At     uint64    // its sequence in the hub's stream
	Stored time.Time // when the hub stored it, by the hub's clock

	Device string
	Lane   string // the route's name, or twin.Late of it
	Epoch  string // names one life of the lane's queue on the device
	Seq    uint64 // in it; the last one of a range

	Lost *twin.Lost // the range that does not come here, and why; nil of a message

	Module string      // who sent it
	Name   string      // under this name
	Time   time.Time   // when the device stored it, by the device's clock, which may be wrong
	Header nats.Header // the sender's own; nil for none
	Body   []byte
}

// Filter says which messages are meant. An empty field is any.
type Filter struct {
	Device string
	Lane   string // the route's name, or twin.Late of it
	Module string // with this or a name, ranges that do not come are left out: they have neither
	Name   string
}

// subject is the filter as JetStream knows it.
func (f Filter) subject() (string, error) {
	live, _ := strings.CutSuffix(f.Lane, lateMark)
	for what, name := range map[string]string{"device": f.Device, "lane": live, "module": f.Module, "name": f.Name} {
		if err := schema.CheckName(name); name != "" && err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
	}
	any := func(s string) string {
		if s == "" {
			return "*"
		}
		return s
	}
	if f.Module == "" && f.Name == "" {
		return twin.Lane(any(f.Device), any(f.Lane)) + ".>", nil
	}
	return twin.LaneOut(any(f.Device), any(f.Lane), any(f.Module), any(f.Name)), nil
}

// Messages reads the messages that a hub holds.
type Messages struct{ js jetstream.JetStream }

// OpenMessages reads over nc, which has the rights of an operator; see Dial.
func OpenMessages(nc *nats.Conn) (*Messages, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open messages: %w", err)
	}
	return &Messages{js}, nil
}

// Messages reads the messages of this hub.
func (h *Hub) Messages() *Messages { return &Messages{h.js} }

// Read calls f with the messages that are there, in the order in which the hub
// stored them, from the one at from on (see Message.At; 0 is the oldest), until f
// returns false. Messages of one lane are in the order of the device.
func (m *Messages) Read(ctx context.Context, filter Filter, from uint64, f func(Message) bool) error {
	return m.read(ctx, filter, from, false, f)
}

// followBeat is how often who follows hears from the hub where there is no message.
const followBeat = 2 * time.Second

// Follow is Read that waits for what comes after, until ctx ends.
func (m *Messages) Follow(ctx context.Context, filter Filter, from uint64, f func(Message) bool) error {
	return m.read(ctx, filter, from, true, f)
}

func (m *Messages) read(ctx context.Context, filter Filter, from uint64, follow bool, f func(Message) bool) error {
	subject, err := filter.subject()
	if err != nil {
		return fmt.Errorf("read messages: %w", err)
	}
	config := jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}, InactiveThreshold: time.Minute}
	if from > 0 {
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from
	}
	consumer, err := m.js.OrderedConsumer(ctx, StreamMessages, config)
	if err != nil {
		return fmt.Errorf("read messages: is this a Tidemark hub, and this the key of its operator? %w", err)
	}
	if !follow {
		if info, err := consumer.Info(ctx); err != nil || info.NumPending == 0 {
			return err
		}
	}
	var options []jetstream.PullMessagesOpt
	if follow { // a hub that was restarted knows nothing of us: that is noticed by its silence
		options = append(options, jetstream.PullHeartbeat(followBeat))
	}
	incoming, err := consumer.Messages(options...)
	if err != nil {
		return fmt.Errorf("read messages: %w", err)
	}
	defer incoming.Stop()
	defer context.AfterFunc(ctx, incoming.Stop)()
	for {
		msg, err := incoming.Next()
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) && ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read messages: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read messages: %w", err)
		}
		if one, ok := readMessage(msg, meta); ok && !f(one) || meta.NumPending == 0 && !follow {
			return nil
		}
	}
}

// readMessage takes a stored message apart. What a hub did not write is none.
func readMessage(msg jetstream.Msg, meta *jetstream.MsgMetadata) (Message, bool) {
	header := msg.Headers()
	p := readHeader(header)
	m := Message{At: meta.Sequence.Stream, Stored: meta.Timestamp, Epoch: p.Epoch, Seq: p.Seq}
	parts := strings.Split(msg.Subject(), ".")
	if p.Epoch == "" || len(parts) < 4 {
		return Message{}, false
	}
	m.Device, m.Lane = parts[1], parts[2]
	switch {
	case len(parts) == 4 && parts[3] == "lost":
		m.Lost = &twin.Lost{}
		err := json.Unmarshal(msg.Data(), m.Lost)
		return m, err == nil && m.Lost.To == m.Seq && m.Lost.From > 0 && m.Lost.From <= m.Lost.To
	case len(parts) == 6 && parts[3] == "out":
		m.Module, m.Name, m.Body = parts[4], parts[5], msg.Data()
		m.Time, _ = time.Parse(time.RFC3339Nano, header.Get(twin.HeaderTime))
		for key, values := range header {
			if twin.Reserved(key) {
				continue
			}
			if m.Header == nil {
				m.Header = nats.Header{}
			}
			m.Header[key] = values
		}
		return m, true
	}
	return Message{}, false
}

// readHeader reads where a stored message is in its lane; the zero value of what
// carries nothing, or nonsense.
func readHeader(h nats.Header) twin.Position {
	epoch := h.Get(twin.HeaderEpoch)
	seq, err := strconv.ParseUint(h.Get(twin.HeaderSeq), 10, 64)
	if err != nil || !isEpoch(epoch) {
		return twin.Position{}
	}
	return twin.Position{Epoch: epoch, Seq: seq}
}
