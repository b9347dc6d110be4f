package durable

import (
	"bytes"
	"strings"
	"testing"
)

func TestSeal(t *testing.T) {
	sealed, err := Seal(3, map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	content, err := Unseal(3, sealed)
	if err != nil || string(content) != `{"a":"b"}` {
		t.Errorf("%s, %v", content, err)
	}
	if n := len(sealed) - len(content); n > SealBytes {
		t.Errorf("a seal takes %d bytes", n)
	}
	for name, data := range map[string][]byte{
		"empty":   nil,
		"cut off": sealed[:len(sealed)-1],
		"flipped": bytes.Replace(sealed, []byte(`"b"`), []byte(`"c"`), 1),
		"no sum":  []byte(`{"version":3,"content":{"a":"b"}}`),
	} {
		if _, err := Unseal(3, data); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := Unseal(4, sealed); err == nil || !strings.Contains(err.Error(), "version 3, want 4") {
		t.Errorf("of another version: %v", err)
	}
	if _, err := Seal(1, make(chan int)); err == nil {
		t.Error("a channel is sealed")
	}
}
