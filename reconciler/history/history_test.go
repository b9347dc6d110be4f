package history

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
)

func event(n int, reason string) schema.Event {
	return schema.Event{
		At: time.Date(2026, 1, 2, 3, 4, n, 0, time.UTC), Kind: schema.EventRefused,
		Revision: schema.Revision{Commit: fmt.Sprintf("%040x", n)}, Module: "sensor", Reason: reason, Output: "panic: 日本\n",
	}
}

func TestEventsSurvive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	l := must(Open(dir))(t)
	for n := range 3 {
		if err := l.Add(event(n, "why")); err != nil {
			t.Fatal(err)
		}
	}
	again := must(Open(dir))(t)
	if !reflect.DeepEqual(again.Events(), l.Events()) || len(again.Events()) != 3 {
		t.Errorf("read %+v\nwant %+v", again.Events(), l.Events())
	}
}

func TestEventsAreBounded(t *testing.T) {
	dir := t.TempDir()
	l := must(Open(dir))(t)
	long := strings.Repeat("é", maxReason)
	for n := range 2 * maxEvents {
		e := event(n, long)
		e.Output = strings.Repeat("é", maxOutput)
		if err := l.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	events := l.Events()
	last := events[len(events)-1]
	if last.Revision.Commit != fmt.Sprintf("%040x", 2*maxEvents-1) || len(events) > maxEvents || len(events) < 20 {
		t.Errorf("%d events, the last one of %s", len(events), last.Revision.Commit)
	}
	if len(last.Reason) > maxReason+len("…") || len(last.Output) > maxOutput || !json.Valid([]byte(`"`+last.Output+`"`)) {
		t.Errorf("kept %d bytes of the reason and %d of the output", len(last.Reason), len(last.Output))
	}
	info, err := os.Stat(filepath.Join(dir, eventsFile))
	if err != nil || info.Size() > maxEventBytes {
		t.Errorf("%v bytes, %v", info.Size(), err)
	}
	if again := must(Open(dir))(t).Events(); len(again) != len(events) {
		t.Errorf("read %d events of %d", len(again), len(events))
	}
}

func TestABrokenHistoryIsSetAsideAndTheDeviceGoesOn(t *testing.T) {
	whole, err := durable.Seal(version, []schema.Event{event(1, "why")})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"empty":     "",
		"truncated": string(whole[:len(whole)/2]),
		"flipped":   strings.Replace(string(whole), "why", "whx", 1),
		"newer":     strings.Replace(string(whole), `"version":1`, `"version":2`, 1),
		"other":     `{"version":1,"sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","content":{}}`,
		"large":     string(whole) + strings.Repeat(" ", maxEventBytes),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, eventsFile)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(dir)
			if err == nil || !strings.Contains(err.Error(), "set aside as "+eventsFile+".broken-") || len(l.Events()) > 0 {
				t.Errorf("read %+v, %v", l.Events(), err)
			}
			if err := l.Add(event(2, "new")); err != nil {
				t.Fatal(err)
			}
			if again := must(Open(dir))(t).Events(); len(again) != 1 {
				t.Errorf("read %+v", again)
			}
		})
	}
}

func TestAnEventThatCannotBeWrittenIsWrittenWithTheNext(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // no file can be made below it
		t.Fatal(err)
	}
	l := &Log{path: filepath.Join(dir, eventsFile)}
	if err := l.Add(event(1, "first")); err == nil || len(l.Events()) != 1 {
		t.Fatalf("added, %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := l.Add(event(2, "second")); err != nil {
		t.Fatal(err)
	}
	if again := must(Open(dir))(t).Events(); len(again) != 2 {
		t.Errorf("read %+v", again)
	}
}

func TestWhatIsKnownIsNoNews(t *testing.T) {
	l := must(Open(t.TempDir()))(t)
	l.Add(event(1, "no room: 5 MiB are free"))
	l.Add(event(2, "other"))
	for _, tc := range []struct {
		event schema.Event
		known bool
	}{
		{event(1, "no room: 6 MiB are free"), true},
		{event(1, "no signature"), false},
		{event(3, "other"), false},
	} {
		if l.Knows(tc.event) != tc.known {
			t.Errorf("%+v is known: %v", tc.event, !tc.known)
		}
	}
}

func definitionOf(n, size int) schema.Desired {
	return schema.Desired{
		Revision: schema.Revision{Commit: fmt.Sprintf("%040x", n), Subject: fmt.Sprint("change ", n)}, Device: "hannover01",
		Twin:    schema.TwinSpec{Desired: map[string]any{"big": json.Number("9007199254740993"), "fill": strings.Repeat("x", size)}},
		Modules: []schema.Module{{Name: "sensor", Image: schema.Image("registry.test/app@sha256:" + strings.Repeat("0", 64))}},
	}
}

func TestRevisionsSurviveAndAreBounded(t *testing.T) {
	dir := t.TempDir()
	r := must(OpenRevisions(dir))(t)
	for n := range maxRevisions + 3 {
		if err := r.Keep(definitionOf(n, 10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Keep(definitionOf(5, 10)); err != nil { // good again: the newest
		t.Fatal(err)
	}
	r = must(OpenRevisions(dir))(t)
	want := []int{5, 7, 6, 4, 3}
	list := r.List()
	if len(list) != len(want) {
		t.Fatalf("kept %+v", list)
	}
	for i, n := range want {
		if list[i] != definitionOf(n, 0).Revision {
			t.Errorf("%d: kept %+v, want %d", i, list[i], n)
		}
		d, err := r.Load(list[i].Commit)
		if err != nil || !reflect.DeepEqual(d, definitionOf(n, 10)) {
			t.Errorf("loaded %+v, %v", d, err)
		}
	}
	if _, err := r.Load(definitionOf(0, 0).Revision.Commit); err == nil {
		t.Error("loaded what is not kept")
	}
	if entries, _ := os.ReadDir(r.dir); len(entries) != maxRevisions {
		t.Errorf("%d files", len(entries))
	}
}

func TestLargeRevisionsAreFewer(t *testing.T) {
	r := must(OpenRevisions(t.TempDir()))(t)
	for n := range 4 {
		if err := r.Keep(definitionOf(n, maxRevisionBytes/5*2)); err != nil {
			t.Fatal(err)
		}
	}
	if list := r.List(); len(list) != 2 || list[0] != definitionOf(3, 0).Revision {
		t.Errorf("kept %+v", list)
	}
	if err := r.Keep(definitionOf(9, maxRevisionBytes)); err == nil {
		t.Error("kept one that is too large")
	}
	if err := r.Keep(schema.Desired{Revision: schema.Revision{Commit: "../../x"}}); err == nil {
		t.Error("kept what is no commit")
	}
}

func TestABrokenRevisionIsSetAside(t *testing.T) {
	dir := t.TempDir()
	r := must(OpenRevisions(dir))(t)
	for n := range 3 {
		if err := r.Keep(definitionOf(n, 10)); err != nil {
			t.Fatal(err)
		}
	}
	path := r.path(definitionOf(1, 0).Revision.Commit)
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Load(definitionOf(1, 0).Revision.Commit); err == nil || len(r.List()) != 2 {
		t.Errorf("loaded, %v; kept %+v", err, r.List())
	}
	// One that has another one's name.
	if err := os.Rename(r.path(definitionOf(0, 0).Revision.Commit), r.path(definitionOf(8, 0).Revision.Commit)); err != nil {
		t.Fatal(err)
	}
	again, err := OpenRevisions(dir)
	if err == nil || len(again.List()) != 1 || again.List()[0] != definitionOf(2, 0).Revision {
		t.Errorf("kept %+v, %v", again.List(), err)
	}
}

func FuzzOpen(f *testing.F) {
	whole, err := durable.Seal(version, definition{1, definitionOf(1, 1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"version":1,"content":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d definition
		if open(b, &d) != nil {
			return
		}
		again, err := durable.Seal(version, d)
		if err != nil {
			t.Fatal(err)
		}
		var e definition
		if err := open(again, &e); err != nil {
			t.Fatal(err)
		}
		if b, err := durable.Seal(version, e); err != nil || string(b) != string(again) {
			t.Fatalf("%s, then %s, %v", again, b, err)
		}
	})
}

// must fails the test when there is an error.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
