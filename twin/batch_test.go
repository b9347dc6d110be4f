package twin

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func someBatch() Batch {
	return Batch{
		Lane: "alarms", Prev: Position{"e1", 41}, Epoch: "e1", From: 42,
		Items: []Item{
			{Count: 1, Module: "sensor", Name: "temperature", Time: time.Unix(1, 5).UTC(), Header: nats.Header{"A": {"1", "2"}, "b": {""}}, Body: []byte("21.5")},
			{Count: 7, Reason: LostTTL},
			{Count: 1, Module: "sensor", Name: "x", Time: time.Unix(-7, 0).UTC(), Body: []byte{}},
		},
	}
}

func TestBatchIsReadAsItWasWritten(t *testing.T) {
	for name, b := range map[string]Batch{
		"question": {Lane: "default", Epoch: "e"},
		"messages": someBatch(),
	} {
		got, err := ReadBatch(b.Encode())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, b) {
			t.Errorf("%s: got  %+v\nwant %+v", name, got, b)
		}
	}
	if to := someBatch().To(); to != 50 {
		t.Errorf("the last item is %d, want 50", to)
	}
}

func TestTheLargestMessageFitsIntoABatch(t *testing.T) {
	name := strings.Repeat("n", 63)
	header := nats.Header{}
	for i := range MaxHeaderValues {
		header[strings.Repeat("k", 10)+string(rune('a'+i%26))+string(rune('a'+i/26))] = []string{strings.Repeat("v", MaxHeaders/MaxHeaderValues-12)}
	}
	b := Batch{Lane: name, Prev: Position{name, maxVersion}, Epoch: name, From: maxVersion,
		Items: []Item{{Count: 1, Module: name, Name: name, Time: time.Now(), Header: header, Body: make([]byte, MaxBody)}}}
	data := b.Encode()
	if len(data) > MaxBatch {
		t.Errorf("it has %d bytes, and may have %d", len(data), MaxBatch)
	}
	if size := b.Items[0].Size(); size > MaxBatch-256 || size < len(data)-512 {
		t.Errorf("size is %d, and the batch has %d", size, len(data))
	}
}

func TestMalformedBatches(t *testing.T) {
	good := someBatch().Encode()
	for n := range good {
		if _, err := ReadBatch(good[:n]); err == nil {
			t.Errorf("cut off after %d of %d bytes it is accepted", n, len(good))
		}
	}
	hole := someBatch()
	hole.Items[1].Count = 0
	large := someBatch()
	large.Items[1].Count = 1 << 60
	many := Batch{Epoch: "e", From: 1, Items: make([]Item, MaxItems+1)}
	for name, data := range map[string][]byte{
		"more":       append(bytes.Clone(good), 0),
		"format":     append([]byte{9}, good[1:]...),
		"hole":       hole.Encode(),
		"overflow":   large.Encode(),
		"items":      many.Encode(),
		"bytes":      make([]byte, MaxBatch+1),
		"zero":       Batch{Epoch: "e", From: 0, Items: []Item{{Count: 1}}}.Encode(),
		"long epoch": Batch{Epoch: strings.Repeat("e", maxToken+1)}.Encode(),
	} {
		if _, err := ReadBatch(data); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzReadBatch(f *testing.F) {
	f.Add(someBatch().Encode())
	f.Add(Batch{}.Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ReadBatch(data)
		if err != nil {
			return
		}
		again, err := ReadBatch(b.Encode())
		if err != nil || !reflect.DeepEqual(again, b) {
			t.Errorf("%+v is read back as %+v, %v", b, again, err)
		}
	})
}
