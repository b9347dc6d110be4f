package twin

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// HeaderIfMatch is a header of P.twin.reported and P.twin.replace: the version
// of reported that the sender has seen, in decimal digits, with or without
// double quotes. If it is not the present one, nothing is changed and the answer
// is CodePrecondition. It is written exactly so.
const HeaderIfMatch = "If-Match"

// Precondition reports why an update with these headers may not change s: an
// *Error with CodePrecondition, whose message names the present version, or with
// CodeMalformed. No header permits every version.
func Precondition(s Section, header nats.Header) error {
	values := header[HeaderIfMatch]
	if len(values) == 0 {
		return nil
	}
	text := values[0]
	if inner, ok := strings.CutPrefix(text, `"`); ok && strings.HasSuffix(inner, `"`) {
		text = strings.TrimSuffix(inner, `"`)
	}
	want, err := strconv.ParseUint(text, 10, 64)
	if err != nil || len(values) > 1 || strconv.FormatUint(want, 10) != text {
		return &Error{Code: CodeMalformed, Message: fmt.Sprintf("%s is %s, want one version", HeaderIfMatch, clip(strings.Join(values, ", ")))}
	}
	if want != s.Version {
		return &Error{Code: CodePrecondition, Path: "$version", Message: fmt.Sprintf("it stands at version %d, not %d", s.Version, want)}
	}
	return nil
}
