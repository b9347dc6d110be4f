package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

const (
	maxEpoch = 64 // bytes
	lateMark = ":late"
)

// delivery is a batch that a device sent, and that has to be answered.
type delivery struct {
	device string
	reply  string // where the answer goes
	raw    []byte // the encoded batch

	// What unpack fills in.
	batch    twin.Batch
	lane     string      // twin.Lane of it, which names it among those of all devices
	messages []*nats.Msg // as they are stored, one for each item
	epoch    []string    // of all of them
	staged   bool        // they were in a commit
}

// unpack reads and checks the batch. What fails can never be stored, so the codes
// are below 500.
func (d *delivery) unpack() *twin.Error {
	b, err := twin.ReadBatch(d.raw)
	if err != nil {
		code := twin.CodeMalformed
		if len(d.raw) > twin.MaxBatch {
			code = twin.CodeTooLarge
		}
		return &twin.Error{Code: code, Message: err.Error()}
	}
	if e := checkFrame(b); e != nil {
		return e
	}
	d.batch, d.lane, d.epoch = b, twin.Lane(d.device, b.Lane), []string{b.Epoch}
	d.messages = make([]*nats.Msg, len(b.Items))
	subjects := subjects{lane: d.lane}
	to := b.From - 1
	for n, i := range b.Items {
		to += i.Count
		subject, e := subjects.of(i)
		if e == nil {
			e = checked(twin.CheckHeader(i.Header))
		}
		if e != nil {
			return &twin.Error{Code: twin.CodeMalformed, Path: e.Path, Message: fmt.Sprintf("message %d: %s", to, e.Message)}
		}
		d.messages[n] = d.message(subject, i, to)
	}
	return nil
}

// checkFrame checks what a batch says of itself.
func checkFrame(b twin.Batch) *twin.Error {
	bad := func(path, format string, v ...any) *twin.Error {
		return &twin.Error{Code: twin.CodeMalformed, Path: path, Message: fmt.Sprintf(format, v...)}
	}
	live, late := strings.CutSuffix(b.Lane, lateMark)
	if err := schema.CheckName(live); err != nil {
		return bad("lane", "%v", err)
	}
	if b.Prev.Epoch == "" && b.Prev.Seq != 0 || b.Prev.Epoch != "" && !isEpoch(b.Prev.Epoch) {
		return bad("prev", "%.80q and %d are no place", b.Prev.Epoch, b.Prev.Seq)
	}
	if len(b.Items) == 0 {
		return nil
	}
	if !isEpoch(b.Epoch) {
		return bad("epoch", "%.80q: want 1 to %d of a-z, A-Z, 0-9, - and _", b.Epoch, maxEpoch)
	}
	if b.Prev.Epoch == b.Epoch && (b.From <= b.Prev.Seq || !late && b.From != b.Prev.Seq+1) {
		return bad("from", "%d does not follow %d", b.From, b.Prev.Seq)
	}
	return nil
}

func isEpoch(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxEpoch
}

// checked is an error of package twin as it goes over the wire.
func checked(err error) *twin.Error {
	var e *twin.Error
	if err != nil && !errors.As(err, &e) {
		e = &twin.Error{Code: twin.CodeMalformed, Message: err.Error()}
	}
	return e
}

// reasons are those that a device may give for what does not come.
var reasons = map[string]bool{
	twin.LostTTL: true, twin.LostBound: true, twin.LostDamaged: true,
	twin.LostWiped: true, twin.LostSettled: true, twin.LostDeferred: true,
}

// subjects finds where the items of a lane are stored. Most batches have few
// senders, so it remembers those that it checked.
type subjects struct {
	lane  string
	known map[[2]string]string // by module and name
}

func (s *subjects) of(i twin.Item) (string, *twin.Error) {
	if i.Reason != "" {
		if !reasons[i.Reason] {
			return "", &twin.Error{Code: twin.CodeMalformed, Path: "reason", Message: fmt.Sprintf("%.80q is no reason that the hub knows", i.Reason)}
		}
		return s.lane + ".lost", nil
	}
	who := [2]string{i.Module, i.Name}
	if subject, ok := s.known[who]; ok {
		return subject, nil
	}
	if err := errors.Join(schema.CheckName(i.Module), schema.CheckName(i.Name)); err != nil {
		return "", &twin.Error{Code: twin.CodeMalformed, Path: "module", Message: fmt.Sprintf("%.200s", err)}
	}
	if s.known == nil {
		s.known = map[[2]string]string{}
	}
	s.known[who] = s.lane + ".out." + i.Module + "." + i.Name
	return s.known[who], nil
}

// message is an item as it is stored; to is the last sequence that it stands for.
func (d *delivery) message(subject string, i twin.Item, to uint64) *nats.Msg {
	m := &nats.Msg{Subject: subject, Header: make(nats.Header, len(i.Header)+6), Data: i.Body}
	for key, values := range i.Header {
		m.Header[key] = values
	}
	m.Header[twin.HeaderEpoch] = d.epoch
	m.Header[twin.HeaderSeq] = []string{strconv.FormatUint(to, 10)}
	if i.Reason != "" {
		m.Data, _ = json.Marshal(twin.Lost{Epoch: d.batch.Epoch, From: to - i.Count + 1, To: to, Reason: i.Reason}) // strings and numbers
		return m
	}
	m.Header[twin.HeaderTime] = []string{i.Time.UTC().Format(time.RFC3339Nano)}
	return m
}

// behind returns the messages of the batch that the hub has to store when the
// lane stands at at: all, those behind that place, or none. See twin.Batch.
func (d *delivery) behind(at twin.Position) []*nats.Msg {
	b := &d.batch
	if len(b.Items) == 0 || at == b.Prev {
		return d.messages
	}
	if at.Epoch != b.Epoch || b.Prev.Epoch != b.Epoch || at.Seq < b.From-1 {
		return nil
	}
	to := b.From - 1
	for n, i := range b.Items {
		if to += i.Count; to <= at.Seq {
			continue
		}
		if at.Seq != to-i.Count { // within a range: the device has to know how it was stored
			return nil
		}
		return d.messages[n:]
	}
	return nil
}
