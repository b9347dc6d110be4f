package twin

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// HeaderFrom is, on P.in.<name>, who sent the message: "<module>/<output>"; on
// P.rpc.<name>, the module that calls, when it is one.
const HeaderFrom = "Tidemark-From"

// Message is what came by a route to P.in.<name>. Epoch and Seq name it for
// ever: who has to do a thing once remembers them with what it did.
type Message struct {
	From   string      // the sender, "<module>/<output>"
	Epoch  string      // names one life of the route's queue on the device; sequences start over with a new one
	Seq    uint64      // in that queue
	Time   time.Time   // when the device stored it, by the device's clock, which may be wrong
	Header nats.Header // the sender's own; nil for none
	Body   []byte
}

// reserved are the prefixes of headers that are not the sender's own.
var reserved = []string{"Tidemark-", "Nats-"}

// ReadMessage reads what is delivered to P.in.<name>. Headers of ours that are
// not there are zero values: a person may publish there too.
func ReadMessage(header nats.Header, body []byte) (Message, error) {
	m := Message{From: header.Get(HeaderFrom), Epoch: header.Get(HeaderEpoch), Body: body}
	if len(body) > MaxBody || len(m.From) > 2*maxToken || len(m.Epoch) > maxToken {
		return Message{}, &Error{Code: CodeTooLarge, Message: "read message: more than a message may have"}
	}
	var err error
	if seq := header.Get(HeaderSeq); seq != "" {
		if m.Seq, err = strconv.ParseUint(seq, 10, 64); err != nil || m.Seq > maxVersion {
			return Message{}, malformedHeader(HeaderSeq, seq)
		}
	}
	if at := header.Get(HeaderTime); at != "" {
		if m.Time, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return Message{}, malformedHeader(HeaderTime, at)
		}
	}
	for key, values := range header {
		if isReserved(key) {
			continue
		}
		if m.Header == nil {
			m.Header = nats.Header{}
		}
		m.Header[key] = values
	}
	return m, nil
}

func malformedHeader(name, value string) error {
	return &Error{Code: CodeMalformed, Message: fmt.Sprintf("read message: %s is %s", name, clip(value))}
}

func isReserved(key string) bool {
	for _, prefix := range reserved {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}
