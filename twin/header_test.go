package twin

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

func TestHeadersOfSenders(t *testing.T) {
	many := nats.Header{}
	for i := range MaxHeaderValues + 1 {
		many.Add("a", fmt.Sprint(i))
	}
	for name, c := range map[string]struct {
		header nats.Header
		code   int // 0: allowed
	}{
		"none":        {nil, 0},
		"some":        {nats.Header{"Content-Type": {"text/plain"}, "x": {"", "ä b"}, "traceparent": {"00-1"}}, 0},
		"no values":   {nats.Header{"x": nil}, 0},
		"largest":     {nats.Header{"x": {strings.Repeat("v", MaxHeaders-1)}}, 0},
		"larger":      {nats.Header{"x": {strings.Repeat("v", MaxHeaders)}}, CodeTooLarge},
		"many":        {many, CodeTooLarge},
		"jetstream":   {nats.Header{"Nats-Msg-Id": {"1"}}, CodeRefused},
		"folded":      {nats.Header{"nATS-expected-Last-Sequence": {"1"}}, CodeRefused},
		"ours":        {nats.Header{"Tidemark-Seq": {"1"}}, CodeRefused},
		"ours folded": {nats.Header{"TIDEMARK-EPOCH": {"1"}}, CodeRefused},
		"prefix":      {nats.Header{"Nats": {"1"}, "xNats-": {"1"}}, 0},
		"empty":       {nats.Header{"": {"1"}}, CodeMalformed},
		"colon":       {nats.Header{"a:b": {"1"}}, CodeMalformed},
		"space":       {nats.Header{"a b": {"1"}}, CodeMalformed},
		"not ASCII":   {nats.Header{"Natſ-Msg-Id": {"1"}}, CodeMalformed},
		"line in key": {nats.Header{"a\r\nNats-Msg-Id": {"1"}}, CodeMalformed},
		"line":        {nats.Header{"a": {"1\r\nNats-Msg-Id: 2"}}, CodeMalformed},
		"newline":     {nats.Header{"a": {"1\n"}}, CodeMalformed},
		"zero":        {nats.Header{"a": {"\x00"}}, CodeMalformed},
	} {
		err := CheckHeader(c.header)
		var e *Error
		if c.code == 0 && err != nil || c.code != 0 && (!errors.As(err, &e) || e.Code != c.code) {
			t.Errorf("%s: %v, want %d", name, err, c.code)
		}
	}
}
