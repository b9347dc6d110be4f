package sandbox

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

func TestRequestCrosses(t *testing.T) {
	q := request{Device: "d1", Dir: "a/d1", Done: []string{"x"}, Limits: limits{1, time.Second, time.Minute}}
	files := schema.Tree{"a.cue": []byte("package a"), "empty.cue": {}}
	var b bytes.Buffer
	if err := writeRequest(&b, q, files); err != nil {
		t.Fatal(err)
	}
	got, err := readHead(&b)
	q.Files = 2
	if err != nil || !reflect.DeepEqual(got, q) {
		t.Errorf("got %+v, %v", got, err)
	}
	gotFiles, err := readFiles(&b, got.Files)
	if err != nil || !reflect.DeepEqual(gotFiles, files) {
		t.Errorf("got %v, %v", gotFiles, err)
	}
}

func TestBadRequests(t *testing.T) {
	head := func(s string) string { return string([]byte{0, 0, 0, byte(len(s))}) + s }
	ok := head(`{"files":1,"limits":{"memory":1,"cpu":1,"wall":1}}`)
	for name, c := range map[string]struct{ in, want string }{
		"nothing":        {"", "EOF"},
		"half a length":  {"\x00\x00", "unexpected EOF"},
		"half a frame":   {"\x00\x00\x00\x09abc", "unexpected EOF"},
		"huge claim":     {"\xff\xff\xff\xff", "at most"},
		"no JSON":        {head("hello"), "invalid character"},
		"no limits":      {head(`{"files":0}`), "without limits"},
		"negative files": {head(`{"files":-1,"limits":{"memory":1,"cpu":1,"wall":1}}`), "-1 files"},
		"many files":     {head(`{"files":999999999,"limits":{"memory":1,"cpu":1,"wall":1}}`), "at most"},
		"no file":        {ok, "unexpected EOF"},
		"half a file":    {ok + "\x00\x00\x00\x01a", "unexpected EOF"},
		"long path":      {ok + "\x00\x01\x00\x00", "at most"},
		"long file":      {ok + "\x00\x00\x00\x01a\x7f\x00\x00\x00", "at most"},
	} {
		r := strings.NewReader(c.in)
		q, err := readHead(r)
		if err == nil {
			_, err = readFiles(r, q.Files)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	var b bytes.Buffer
	if err := writeRequest(&b, request{Device: "d", Limits: limits{1, 1, 1}}, schema.Tree{"a.cue": []byte("x")}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		if q, err := readHead(r); err == nil {
			_, _ = readFiles(r, q.Files)
		}
	})
}

func FuzzMessages(f *testing.F) {
	for _, s := range []string{`{"end":true}`, `{"begun":"a"}`, `{"entry":{"name":"d"}}`, `{"invalid":{"problems":[{"file":"a","line":1}]},"end":true}`, `{"desired":{"modules":[{"limits":{"memory":-1}}]}}`} {
		var b bytes.Buffer
		if err := writeFrame(&b, []byte(s)); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ended, err := listen(bytes.NewReader(b), func(m message) error {
			if m.Entry != nil {
				_ = m.Entry.entry()
			}
			return m.err()
		})
		if errors.Is(err, io.EOF) && ended {
			t.Error("an end that is none")
		}
	})
}
