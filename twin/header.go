package twin

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
)

// CheckHeader reports why these cannot be the sender's headers of a message that
// goes to the hub: too many or too long, a name or a value that NATS cannot carry,
// or a name that steers JetStream (Nats-…) or speaks for Tidemark, in whatever
// case, because some receivers fold it. The device asks before it takes a message,
// the hub before it stores one. The error is an *Error.
func CheckHeader(h nats.Header) error {
	size, count := 0, 0
	for key, values := range h {
		if !carried(key) {
			return &Error{Code: CodeMalformed, Path: clip(key), Message: "no name of a header: want letters, digits and !#$%&'*+-.^_`|~"}
		}
		if Reserved(key) {
			return &Error{Code: CodeRefused, Path: clip(key), Message: "a header that begins with Nats- or Tidemark- is not the sender's to set"}
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n\x00") {
				return &Error{Code: CodeMalformed, Path: clip(key), Message: "the value of a header holds an end of line or a zero"}
			}
			size, count = size+len(key)+len(v), count+1
		}
	}
	if size > MaxHeaders || count > MaxHeaderValues {
		return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("headers have %d bytes in %d values, and may have %d in %d", size, count, MaxHeaders, MaxHeaderValues)}
	}
	return nil
}

// Reserved reports whether a header is not a sender's to set.
func Reserved(key string) bool {
	for _, prefix := range []string{"Nats-", "Tidemark-"} {
		if len(key) >= len(prefix) && strings.EqualFold(key[:len(prefix)], prefix) {
			return true
		}
	}
	return false
}

// carried reports whether key is a token of RFC 9110, which every NATS client
// carries as it is.
func carried(key string) bool {
	for i := range len(key) {
		c := key[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return key != ""
}
