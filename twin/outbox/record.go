package outbox

import (
	"errors"
	"fmt"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// Bounds of one message. Together they stay below NATS's default max_payload of
// 1 MiB, with room for the headers that are added on the way.
const (
	MaxBody    = 1<<20 - 16<<10 // bytes of the body
	MaxHeaders = 8 << 10        // bytes of all names and values
	maxValues  = 64             // header values
)

// Headers of a stored record that do not travel.
const (
	headerBoot = "Tidemark-Boot" // stamp.boot
	headerUp   = "Tidemark-Up"   // stamp.up in nanoseconds
)

// stored is the subject prefix of the stream OUTBOX: stored.<module>.<name>.
const stored = "outbox"

// record is one message as it waits on disk.
type record struct {
	module string
	name   string
	stored stamp
}

// readIntake tells which module's message it is by the subject that the leaf
// let it through on: devices.<device>.modules.<module>.out.<name>.
func readIntake(device, subject string) (module, name string, err error) {
	rest, ok := strings.CutPrefix(subject, twin.Prefix(device, "")+".modules.")
	if !ok {
		return "", "", fmt.Errorf("subject %q is not of a module of %s", subject, device)
	}
	module, name, ok = strings.Cut(rest, ".out.")
	if !ok {
		return "", "", fmt.Errorf("subject %q: want …out.<name>", subject)
	}
	if err := schema.CheckName(module); err != nil {
		return "", "", fmt.Errorf("module %w", err)
	}
	if err := schema.CheckName(name); err != nil {
		return "", "", fmt.Errorf("message %w", err)
	}
	return module, name, nil
}

// newRecord is the message as it is stored. Headers with a reserved name are
// left out, because they steer JetStream or speak for Tidemark; all others
// travel as they are.
func newRecord(module, name string, m *nats.Msg, s stamp, wall time.Time) (*nats.Msg, error) {
	if len(m.Data) > MaxBody {
		return nil, &twin.Error{Code: twin.CodeTooLarge, Message: fmt.Sprintf("message has %d bytes, the most is %d", len(m.Data), MaxBody)}
	}
	out := &nats.Msg{Subject: stored + "." + module + "." + name, Header: nats.Header{}, Data: m.Data}
	size, count := 0, 0
	for key, values := range m.Header {
		if reserved(key) {
			continue
		}
		for _, v := range values {
			size, count = size+len(key)+len(v), count+1
		}
		out.Header[key] = values
	}
	if size > MaxHeaders || count > maxValues {
		return nil, &twin.Error{Code: twin.CodeTooLarge, Message: fmt.Sprintf("headers have %d bytes in %d values, the most is %d in %d", size, count, MaxHeaders, maxValues)}
	}
	out.Header[headerBoot] = []string{s.boot}
	out.Header[headerUp] = []string{strconv.FormatInt(int64(s.up), 10)}
	out.Header[twin.HeaderTime] = []string{wall.UTC().Format(time.RFC3339Nano)}
	return out, nil
}

// reserved reports whether a module may not set the header. Case does not
// matter: some receivers fold it.
func reserved(key string) bool {
	k := textproto.CanonicalMIMEHeaderKey(key)
	return strings.HasPrefix(k, "Nats-") || strings.HasPrefix(k, "Tidemark-")
}

// readRecord reads what is on disk.
func readRecord(subject string, h nats.Header) (record, error) {
	var r record
	rest, ok := strings.CutPrefix(subject, stored+".")
	if !ok {
		return r, fmt.Errorf("read record: subject %q is not below %s", subject, stored)
	}
	r.module, r.name, _ = strings.Cut(rest, ".")
	if err := errors.Join(schema.CheckName(r.module), schema.CheckName(r.name)); err != nil {
		return r, fmt.Errorf("read record: subject %q: %w", subject, err)
	}
	up, err := strconv.ParseInt(h.Get(headerUp), 10, 64)
	if err != nil || up < 0 {
		return r, fmt.Errorf("read record: %s %q is no time since boot", headerUp, h.Get(headerUp))
	}
	r.stored = stamp{h.Get(headerBoot), time.Duration(up)}
	return r, nil
}

// uplinked is the record as it goes to the hub.
func uplinked(device, epoch string, seq uint64, r record, h nats.Header, body []byte) *nats.Msg {
	out := &nats.Msg{Subject: twin.UpOut(device, r.module, r.name), Header: make(nats.Header, len(h)+2), Data: body}
	for key, values := range h {
		if !reserved(key) {
			out.Header[key] = values
		}
	}
	out.Header[twin.HeaderTime] = h[twin.HeaderTime]
	out.Header[twin.HeaderEpoch] = []string{epoch}
	out.Header[twin.HeaderSeq] = []string{strconv.FormatUint(seq, 10)}
	return out
}
