package twin

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestPrecondition(t *testing.T) {
	s := Section{Version: 7}
	for _, c := range []struct {
		header nats.Header
		code   int
	}{
		{nil, 0},
		{nats.Header{"If-None-Match": {"*"}}, 0},
		{nats.Header{HeaderIfMatch: {"7"}}, 0},
		{nats.Header{HeaderIfMatch: {`"7"`}}, 0},
		{nats.Header{HeaderIfMatch: {"6"}}, CodePrecondition},
		{nats.Header{HeaderIfMatch: {"8"}}, CodePrecondition},
		{nats.Header{HeaderIfMatch: {"18446744073709551615"}}, CodePrecondition},
		{nats.Header{HeaderIfMatch: {"18446744073709551616"}}, CodeMalformed},
		{nats.Header{HeaderIfMatch: {""}}, CodeMalformed},
		{nats.Header{HeaderIfMatch: {`"`}}, CodeMalformed},
		{nats.Header{HeaderIfMatch: {`""`}}, CodeMalformed},
		{nats.Header{HeaderIfMatch: {"*"}}, CodeMalformed},
		{nats.Header{HeaderIfMatch: {"07"}}, CodeMalformed},
		{nats.Header{HeaderIfMatch: {"+7"}}, CodeMalformed},
		{nats.Header{HeaderIfMatch: {"-7"}}, CodeMalformed},
		{nats.Header{HeaderIfMatch: {"7.0"}}, CodeMalformed},
		{nats.Header{HeaderIfMatch: {"7", "8"}}, CodeMalformed},
		{nats.Header{HeaderIfMatch: {"7\n" + strings.Repeat("x", 1<<16)}}, CodeMalformed},
	} {
		err := Precondition(s, c.header)
		var e *Error
		if c.code == 0 && err != nil || c.code != 0 && (!errors.As(err, &e) || e.Code != c.code || len(e.Message) > 300) {
			t.Errorf("%v: %v", c.header, err)
		}
		if e != nil && e.Code == CodePrecondition && !strings.Contains(e.Message, "version 7") {
			t.Errorf("%v does not say the present version", err)
		}
	}
}

func TestReadMessage(t *testing.T) {
	m, err := ReadMessage(nats.Header{
		HeaderFrom: {"sensor/temperature"}, HeaderEpoch: {"e1"}, HeaderSeq: {"12"}, HeaderTime: {"2026-03-01T12:00:00.000000001Z"},
		"Nats-Msg-Id": {"x"}, "Unit": {"K", "C"},
	}, []byte("body"))
	want := Message{
		From: "sensor/temperature", Epoch: "e1", Seq: 12, Time: noon.Add(1),
		Header: nats.Header{"Unit": {"K", "C"}}, Body: []byte("body"),
	}
	if err != nil || !reflect.DeepEqual(m, want) {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err = ReadMessage(nil, nil); err != nil || !reflect.DeepEqual(m, Message{}) {
		t.Errorf("a person's: %+v, %v", m, err)
	}
	for name, h := range map[string]nats.Header{
		"no number":   {HeaderSeq: {"x"}},
		"negative":    {HeaderSeq: {"-1"}},
		"too great":   {HeaderSeq: {"18446744073709551615"}},
		"no time":     {HeaderTime: {"noon"}},
		"long epoch":  {HeaderEpoch: {strings.Repeat("e", maxToken+1)}},
		"long sender": {HeaderFrom: {strings.Repeat("e", 2*maxToken+1)}},
	} {
		var e *Error
		if _, err := ReadMessage(h, nil); !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadMessage(nil, make([]byte, MaxBody+1)); err == nil {
		t.Error("a body of any size is taken")
	}
}

func TestCallTime(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": DefaultCallTime, "30s": 30 * time.Second, "1m30s": 90 * time.Second, "500ms": 500 * time.Millisecond, "5m": MaxCallTime,
		"5m1s": 0, "0s": 0, "-1s": 0, "30": 0, "s": 0, "1e3s": 0, "999999999999h": 0, strings.Repeat("1s", 10000): 0,
	} {
		got, err := CallTime(nats.Header{HeaderTimeout: {text}})
		var e *Error
		if got != want || want == 0 && (!errors.As(err, &e) || e.Code != CodeMalformed || len(e.Message) > 300) || want != 0 && err != nil {
			t.Errorf("%.20q: %v, %v", text, got, err)
		}
	}
	if got, err := CallTime(nil); got != DefaultCallTime || err != nil {
		t.Errorf("no header: %v, %v", got, err)
	}
}

func TestReadReply(t *testing.T) {
	for reply, code := range map[string]int{
		"": 0, "x": 0, "{": 0, "{}": 0, `{"error":null}`: 0, `{"error":"x"}`: 0, `{"error":{}}`: 0, `{"error":{"code":1}}`: 0,
		`{"error":{"code":404,"message":"no"},"more":1}`: 0, `["error"]`: 0, `{"error":{"code":"404"}}`: 0, "\xff\x00": 0,
		`{"error":{"code":404,"message":"no"}}`: 404, ` {"error":{"code":404,"message":"no"}}`: 0,
		`{"error":{"code":503,"path":"a.b","message":"no"}}`: 503, `{"error":{"code":700,"message":"no"}}`: 0,
	} {
		got, err := ReadReply([]byte(reply))
		var e *Error
		if code == 0 && (err != nil || string(got) != reply) || code != 0 && (!errors.As(err, &e) || e.Code != code) {
			t.Errorf("%s: %s, %v", reply, got, err)
		}
	}
	if _, err := ReadReply(make([]byte, MaxBody+1)); err == nil {
		t.Error("an answer of any size is taken")
	}
	if _, err := ReadReply(Refusal(errors.New(strings.Repeat("x", 1<<20)))); err == nil || len(err.Error()) > 2*maxReason {
		t.Errorf("a long refusal: %d bytes", len(err.Error()))
	}
	if _, err := ReadReply(Refusal(&Error{Code: CodeNotFound, Path: "a", Message: "b"})); err == nil || err.Error() != "a: b (404)" {
		t.Errorf("a refusal: %v", err)
	}
}
