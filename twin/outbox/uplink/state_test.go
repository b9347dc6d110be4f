package uplink

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/twin"
)

func someState() state {
	return state{
		Life: life{Epoch: "e2", Base: 5, Known: 90, Live: 40, Late: 12, Noted: spans{{41, 50, twin.LostTTL}}, Deferred: spans{{From: 10, To: 20}}},
		Old:  &life{Epoch: "e1", Known: 7}, Began: true,
	}
}

func TestStateIsReadAsItWasWritten(t *testing.T) {
	d := directory(filepath.Join(t.TempDir(), "uplink"))
	if _, known, err := d.read("alarms"); known || err != nil {
		t.Fatalf("a state from nowhere: %v, %v", known, err)
	}
	want := someState()
	if err := d.write("alarms", want); err != nil {
		t.Fatal(err)
	}
	got, known, err := d.read("alarms")
	if err != nil || !known || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v, %v", got, known, err)
	}
	if _, known, _ := d.read("default"); known {
		t.Fatal("another lane has it, too")
	}
}

func TestABrokenStateIsSetAside(t *testing.T) {
	good, err := someState().encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"empty":    "",
		"cut off":  string(good[:len(good)/2]),
		"flipped":  strings.Replace(string(good), `"known":90`, `"known":91`, 1),
		"version":  strings.Replace(string(good), `"version":1`, `"version":9`, 1),
		"too long": string(good) + strings.Repeat(" ", maxState),
	} {
		dir := t.TempDir()
		d := directory(dir)
		if err := os.WriteFile(d.path("l"), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := d.read("l")
		var broken *brokenError
		if !errors.As(err, &broken) {
			t.Errorf("%s: %v", name, err)
		}
		if _, known, err := d.read("l"); known || err != nil {
			t.Errorf("%s: it is met again: %v", name, err)
		}
		if kept, _ := filepath.Glob(filepath.Join(dir, "*broken*")); len(kept) != 1 {
			t.Errorf("%s: kept as %v", name, kept)
		}
	}
}

func FuzzState(f *testing.F) {
	good, _ := someState().encode()
	f.Add(good)
	f.Add([]byte(`{"version":1,"sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","state":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState(data)
		if err != nil {
			return
		}
		again, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeState(again); err != nil {
			t.Fatalf("what was accepted is not accepted again: %v", err)
		}
	})
}

func TestAStateMakesSense(t *testing.T) {
	for name, change := range map[string]func(*state){
		"no epoch":        func(s *state) { s.Life.Epoch = "" },
		"overlap":         func(s *state) { s.Life.Deferred = spans{{From: 1, To: 5}, {From: 5, To: 9}} },
		"backwards":       func(s *state) { s.Life.Noted = spans{{9, 3, twin.LostTTL}} },
		"no reason":       func(s *state) { s.Life.Noted[0].Reason = "" },
		"beyond":          func(s *state) { s.Life.Known = 1 << 60 },
		"range beyond":    func(s *state) { s.Life.Deferred = spans{{From: 1, To: 1 << 60}} },
		"old makes none":  func(s *state) { s.Old.Epoch = "" },
		"sequence zero":   func(s *state) { s.Life.Deferred = spans{{From: 0, To: 5}} },
		"old range wrong": func(s *state) { s.Old.Noted = spans{{1, 2, ""}} },
	} {
		s := someState()
		change(&s)
		data, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeState(data); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
