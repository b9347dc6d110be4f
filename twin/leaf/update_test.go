package leaf

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// update asks for a change of reported, on a condition where there is one.
func update(t testing.TB, conn *nats.Conn, how, ifMatch, body string) (twin.Answer, *twin.Error) {
	t.Helper()
	m := &nats.Msg{Subject: "devices.d1.modules.sensor.twin." + how, Data: []byte(body), Header: nats.Header{}}
	if ifMatch != "" {
		m.Header[twin.HeaderIfMatch] = []string{ifMatch}
	}
	answer, err := conn.RequestMsg(m, patience)
	if err != nil {
		t.Fatal(err)
	}
	a, err := twin.ReadAnswer(answer.Data)
	var refusal *twin.Error
	if err != nil && !errors.As(err, &refusal) {
		t.Fatal(err)
	}
	return a, refusal
}

func TestReplaceReported(t *testing.T) {
	s := newSite(t)
	l := s.open()
	d := declared("sensor")
	d.Modules[0].Twin.Reported = "a?: int\nb?: {...}\n"
	s.declare(l, d)
	conn := s.module(l, "sensor")
	if a, e := update(t, conn, "reported", "", `{"a":1,"b":{"x":1}}`); a.Version != 2 || e != nil {
		t.Fatal(a, e)
	}
	if a, e := update(t, conn, "replace", "", `{"b":{"y":2},"a":null}`); a.Version != 3 || e != nil {
		t.Error(a, e)
	}
	got := get(t, conn, "sensor").Properties.Reported
	b, _ := got.Values["b"].(map[string]any)
	if len(got.Values) != 1 || len(b) != 1 || b["y"] != 2.0 {
		t.Errorf("replaced: %v", got.Values)
	}
	if a, e := update(t, conn, "replace", "", `{"b":{"y":2}}`); a.Version != 3 || e != nil {
		t.Error("the same again", a, e)
	}
	for body, code := range map[string]int{
		`{"c":1}`: twin.CodeSchema, `[]`: twin.CodeMalformed, `{"$x":1}`: twin.CodeMalformed, ``: twin.CodeMalformed,
		`{"b":{"x":"` + strings.Repeat("x", twin.MaxSection) + `"}}`: twin.CodeTooLarge,
	} {
		if _, e := update(t, conn, "replace", "", body); e == nil || e.Code != code {
			t.Errorf("%.20s: %v, want %d", body, e, code)
		}
	}
	if got := get(t, conn, "sensor").Properties.Reported; got.Version != 3 {
		t.Errorf("refused, and at version %d", got.Version)
	}
	person, _, err := Dial(s.config.RunDir)
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	answer, err := person.Request("devices.d1.twin.replace", []byte(`{}`), patience)
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := twin.ReadAnswer(answer.Data); a.Error == nil || a.Error.Code != twin.CodeRefused {
		t.Errorf("a person replaced what the agent reports: %s", answer.Data)
	}
}

func TestUpdateOnConditionOfAVersion(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	conn := s.module(l, "sensor")
	if a, e := update(t, conn, "reported", "1", `{"a":1}`); a.Version != 2 || e != nil {
		t.Fatal(a, e)
	}
	for _, how := range []string{"reported", "replace"} {
		if _, e := update(t, conn, how, "1", `{"a":9}`); e == nil || e.Code != twin.CodePrecondition || !strings.Contains(e.Message, "2") {
			t.Errorf("%s from a version that is over: %v", how, e)
		}
		if _, e := update(t, conn, how, "*", `{"a":9}`); e == nil || e.Code != twin.CodeMalformed {
			t.Errorf("%s from no version: %v", how, e)
		}
	}
	if a, e := update(t, conn, "replace", `"2"`, `{"b":1}`); a.Version != 3 || e != nil {
		t.Error(a, e)
	}
	// Of many that start from one version, one gets through.
	var wait sync.WaitGroup
	through := make(chan uint64, 20)
	for i := range 20 {
		wait.Go(func() {
			if a, e := update(t, conn, "reported", "3", `{"b":`+string(rune('a'+i))+`}`); e == nil {
				through <- a.Version
			}
			if a, e := update(t, conn, "reported", "3", `{"b":`+strings.Repeat("1", i+2)+`}`); e == nil {
				through <- a.Version
			}
		})
	}
	wait.Wait()
	if len(through) != 1 || <-through != 4 {
		t.Errorf("%d got through", len(through)+1)
	}
}

// TestKubeEdge6269StatusReportsDoNotLoop: there, each report of a status set off
// the next. Here a report that says nothing new changes nothing that anybody could
// follow, and none changes desired, nor tells a module anything.
func TestKubeEdge6269StatusReportsDoNotLoop(t *testing.T) {
	s := newSite(t)
	signals := s.signals()
	l := s.open()
	d := declared("sensor")
	d.Modules[0].Twin.Signal = "SIGHUP"
	s.declare(l, d)
	conn, err := l.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	desired, err := conn.SubscribeSync("devices.d1.>")
	if err != nil || conn.Flush() != nil {
		t.Fatal(err)
	}
	r := schema.Report{Phase: schema.PhaseHealthy, Modules: map[string]schema.ModuleReport{"sensor": {RuntimeStatus: schema.RuntimeRunning, StartedAt: time.Now()}}}
	changes := func() (n int) {
		for {
			select {
			case <-l.Changed():
				n++
			default:
				return n
			}
		}
	}
	changes()
	for i := range 3 {
		r.Modules["sensor"] = schema.ModuleReport{RuntimeStatus: schema.RuntimeRunning, StartedAt: r.Modules["sensor"].StartedAt, Restarts: i}
		total := 0
		for range 50 { // as a loop would
			if err := l.Report(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if err := l.Declare(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			total += changes()
		}
		if total != 1 {
			t.Errorf("50 reports of one state were %d changes", total)
		}
	}
	if v := l.Documents()[0].Properties.Reported.Version; v != 4 {
		t.Errorf("three states are at version %d", v)
	}
	for _, d := range l.Documents() {
		if d.Properties.Desired.Version != 1 {
			t.Errorf("reports changed desired of %q: version %d", d.Module, d.Properties.Desired.Version)
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := desired.Pending(); n != 0 || len(signals.all()) != 0 {
		t.Errorf("reports were %d messages to modules and %d signals", n, len(signals.all()))
	}
}
