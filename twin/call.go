package twin

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// HeaderTimeout is a header of a call of a direct method: how long its caller
// waits, as "30s", "1m30s" or "500ms". Without it that is DefaultCallTime.
const HeaderTimeout = "Tidemark-Timeout"

// How long calls may take.
const (
	DefaultCallTime = 30 * time.Second
	MaxCallTime     = 5 * time.Minute
)

// CallTime is how long a call with these headers may take. The error is an
// *Error.
func CallTime(header nats.Header) (time.Duration, error) {
	text := header.Get(HeaderTimeout)
	if text == "" {
		return DefaultCallTime, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > MaxCallTime {
		return 0, &Error{Code: CodeMalformed, Message: fmt.Sprintf("%s is %s, want a time like 30s, at most %s", HeaderTimeout, clip(text), MaxCallTime)}
	}
	return d, nil
}

// ReadReply reads what a direct method answered: whatever it likes, unless that
// is an object of one member error, as of Answer, with a code from 400 to 599,
// which is how a method refuses, and how whoever stands between says that it
// could not be asked. The error is an *Error.
func ReadReply(data []byte) ([]byte, error) {
	if len(data) > MaxBody {
		return nil, &Error{Code: CodeTooLarge, Message: fmt.Sprintf("answer has %d bytes, and may have %d", len(data), MaxBody)}
	}
	if len(data) == 0 || data[0] != '{' {
		return data, nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(data, &members) != nil || len(members) != 1 {
		return data, nil
	}
	var refusal Error
	if json.Unmarshal(members["error"], &refusal) != nil || refusal.Code < 400 || refusal.Code > 599 {
		return data, nil
	}
	return nil, &refusal
}

// maxReason bounds what Refusal says, in bytes.
const maxReason = 8 << 10

// Refusal is the Answer that says err to whoever asked: an *Error as it is, any
// other as CodeFailed.
func Refusal(err error) []byte {
	e := *asError(err)
	if len(e.Message) > maxReason {
		e.Message = e.Message[:maxReason] + "…"
	}
	data, _ := json.Marshal(Answer{Error: &e}) // an int and two strings
	return data
}
