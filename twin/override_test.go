package twin

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func someOverride(t testing.TB, patch string) Override {
	return Override{
		Patch: object(t, patch), By: "anna", Reason: "too loud",
		At: noon, Until: noon.Add(8 * time.Hour),
	}
}

func TestOverrideInJSON(t *testing.T) {
	o := someOverride(t, `{"interval":"5s","gone":null,"deep":{"a":[1,{"b":null}]}}`)
	s := Section{Values: object(t, `{"interval":"5s"}`), Version: 3, Metadata: map[string]any{}, Source: "c0ffee", Override: &o}
	const want = `{"interval":"5s","$metadata":{},"$override":{"at":"2026-03-01T12:00:00.000Z","by":"anna",` +
		`"patch":{"deep":{"a":[1,{"b":null}]},"gone":null,"interval":"5s"},"reason":"too loud","until":"2026-03-01T20:00:00.000Z"},` +
		`"$source":"c0ffee","$version":3}`
	if got := string(s.append(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var back Section
	if err := json.Unmarshal([]byte(want), &back); err != nil {
		t.Fatal(err)
	}
	if got := string(back.append(nil)); got != want || !sameOverride(back.Override, &o) || back.Override.Patch["deep"] == nil {
		t.Errorf("read back %s", got)
	}
	d, err := ReadDocument(Document{Device: "d", Properties: Properties{Desired: s}}.Encode())
	if err != nil || !sameOverride(d.Properties.Desired.Override, &o) {
		t.Errorf("in a document: %+v, %v", d, err)
	}
	// The one without an end, and without a reason.
	short := Override{Patch: map[string]any{}, By: "a", At: noon}
	data, err := json.Marshal(short)
	if err != nil || string(data) != `{"at":"2026-03-01T12:00:00.000Z","by":"a","patch":{}}` {
		t.Errorf("%s, %v", data, err)
	}
}

func TestMalformedOverrides(t *testing.T) {
	for name, c := range map[string]struct{ override, path string }{
		"null":              {`null`, ""},
		"number":            {`1`, ""},
		"array":             {`[]`, ""},
		"empty":             {`{}`, ""},
		"cut off":           {`{"patch":{`, ""},
		"patch is null":     {`{"patch":null,"by":"a"}`, ""},
		"patch is an array": {`{"patch":[],"by":"a"}`, ""},
		"$ in the patch":    {`{"patch":{"a":{"$version":1}},"by":"a"}`, "patch.a.$version"},
		"too deep":          {`{"patch":` + nest(MaxDepth+2) + `,"by":"a"}`, "patch." + strings.TrimSuffix(strings.Repeat("a.", MaxDepth+1), ".")},
		"huge number":       {`{"patch":{"a":1e999},"by":"a"}`, "patch.a"},
		"too large":         {`{"patch":{"a":"` + strings.Repeat("x", MaxSection) + `"},"by":"a"}`, "patch"},
		"far too large":     {`{"patch":{"a":"` + strings.Repeat("x", 3*MaxSection) + `"},"by":"a"}`, ""},
		"by nobody":         {`{"patch":{},"by":""}`, "by"},
		"by too many":       {`{"patch":{},"by":"` + strings.Repeat("x", MaxBy+1) + `"}`, "by"},
		"by two lines":      {`{"patch":{},"by":"a\nb"}`, "by"},
		"by a number":       {`{"patch":{},"by":1}`, ""},
		"long reason":       {`{"patch":{},"by":"a","reason":"` + strings.Repeat("x", MaxReason+1) + `"}`, "reason"},
		"escape in reason":  {`{"patch":{},"by":"a","reason":"\u001b[2J"}`, "reason"},
		"no time":           {`{"patch":{},"by":"a","at":"noon"}`, ""},
		"a time's number":   {`{"patch":{},"by":"a","until":12}`, ""},
	} {
		var s Section
		err := json.Unmarshal([]byte(`{"a":1,"$version":1,"$override":`+c.override+`}`), &s)
		var e *Error
		if err == nil || c.path != "" && (!errors.As(err, &e) || e.Path != c.path) {
			t.Errorf("%s: error is %v", name, err)
		}
		if !reflect.DeepEqual(s, Section{}) {
			t.Errorf("%s: the section is %+v", name, s)
		}
	}
	bad := Override{Patch: map[string]any{}, By: "a", At: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)}
	var e *Error
	if err := bad.Check(); !errors.As(err, &e) || e.Path != "at" {
		t.Errorf("a year that cannot be written: %v", err)
	}
}

func FuzzOverride(f *testing.F) {
	f.Add([]byte(`{"patch":{"a":null},"by":"a","at":"2026-03-01T12:00:00Z","until":"0001-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"patch":{"a":1e308},"by":"\ud800"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var o Override
		if json.Unmarshal(data, &o) != nil {
			return
		}
		first := o.append(nil)
		var back Override
		if err := json.Unmarshal(first, &back); err != nil || !sameOverride(&o, &back) {
			t.Fatalf("%s is read back as %s, %v", first, back.append(nil), err)
		}
	})
}

// The life of an override: set, changed, below it a commit, and its end.
func TestOverlay(t *testing.T) {
	git := object(t, `{"interval":"60s","mode":"eco","limits":{"low":1,"high":9}}`)
	s, _, err := Overlay(Section{}, git, nil, noon)
	if err != nil || s.Version != 1 || s.Override != nil {
		t.Fatalf("%+v, %v", s, err)
	}
	s.Source = "c0ffee"
	stamp := func(s Section, key string) any {
		m, _ := s.Metadata[key].(map[string]any)
		return m["$lastUpdatedVersion"]
	}
	want := func(s Section, version uint64, values string) {
		t.Helper()
		if got := string(appendValue(nil, s.Values)); s.Version != version || got != values || s.Source != "c0ffee" {
			t.Errorf("version %d of %s: %s, want version %d: %s", s.Version, s.Source, got, version, values)
		}
	}
	o := someOverride(t, `{"interval":"5s","mode":null,"limits":{"high":20}}`)
	over, changed, err := Overlay(s, git, &o, noon.Add(time.Hour))
	if err != nil || !changed || !sameOverride(over.Override, &o) {
		t.Fatalf("%+v, %v, %v", over, changed, err)
	}
	want(over, 2, `{"interval":"5s","limits":{"high":20,"low":1}}`)
	if stamp(over, "interval") != 2.0 || over.Metadata["limits"].(map[string]any)["low"].(map[string]any)["$lastUpdatedVersion"] != 1.0 {
		t.Errorf("metadata is %v", over.Metadata)
	}
	if _, ok := over.Metadata["mode"]; ok {
		t.Error("what the override removes keeps its metadata")
	}
	want(s, 1, `{"interval":"60s","limits":{"high":9,"low":1},"mode":"eco"}`) // nothing given is modified
	if got := string(appendValue(nil, git)); got != `{"interval":"60s","limits":{"high":9,"low":1},"mode":"eco"}` {
		t.Errorf("what Git says became %s", got)
	}
	if again, changed, err := Overlay(over, git, &o, noon.Add(2*time.Hour)); err != nil || changed || again.Version != 2 {
		t.Errorf("the same again: %+v, %v, %v", again, changed, err)
	}
	longer := o
	longer.Until = o.Until.Add(time.Hour)
	prolonged, changed, err := Overlay(over, git, &longer, noon)
	if err != nil || !changed || prolonged.Version != 3 || stamp(prolonged, "interval") != 2.0 {
		t.Errorf("prolonged: %+v, %v, %v", prolonged, changed, err)
	}
	// A commit below it: what it overrides stays, what it does not follows.
	git = object(t, `{"interval":"30s","mode":"full","limits":{"low":2,"high":9},"new":true}`)
	moved, changed, err := Overlay(prolonged, git, &longer, noon)
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	want(moved, 4, `{"interval":"5s","limits":{"high":20,"low":2},"new":true}`)
	// A commit that says what the override says: the values stay, so does the version.
	agrees := object(t, `{"interval":"5s","limits":{"low":2,"high":20},"new":true}`)
	if same, changed, err := Overlay(moved, agrees, &longer, noon); err != nil || changed || same.Version != 4 {
		t.Errorf("a commit that says the same: %+v, %v, %v", same, changed, err)
	}
	ended, changed, err := Overlay(moved, git, nil, noon)
	if err != nil || !changed || ended.Override != nil {
		t.Fatalf("%+v, %v, %v", ended, changed, err)
	}
	want(ended, 5, `{"interval":"30s","limits":{"high":9,"low":2},"mode":"full","new":true}`)
	// One that changes no value is there all the same.
	quiet := someOverride(t, `{"mode":"full"}`)
	silent, changed, err := Overlay(ended, git, &quiet, noon)
	if err != nil || !changed || silent.Version != 6 || silent.Override == nil || stamp(silent, "mode") != stamp(ended, "mode") {
		t.Errorf("one that says what Git says: %+v, %v, %v", silent, changed, err)
	}
}

func TestOverlayRefuses(t *testing.T) {
	git := object(t, `{"a":"`+strings.Repeat("x", MaxSection/2)+`"}`)
	s, _, err := Overlay(Section{}, git, nil, noon)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		base map[string]any
		o    Override
		code int
		path string
	}{
		"a key":        {git, Override{Patch: map[string]any{"a": map[string]any{"$b": 1}}, By: "x"}, CodeMalformed, "patch.a.$b"},
		"nobody":       {git, Override{Patch: map[string]any{}}, CodeMalformed, "by"},
		"sum too big":  {git, Override{Patch: map[string]any{"b": strings.Repeat("x", MaxSection/2)}, By: "x"}, CodeTooLarge, ""},
		"Git says bad": {map[string]any{"$b": 1}, Override{Patch: map[string]any{}, By: "x"}, CodeMalformed, "$b"},
		"channel":      {git, Override{Patch: map[string]any{"c": make(chan int)}, By: "x"}, CodeMalformed, "patch.c"},
	} {
		next, changed, err := Overlay(s, c.base, &c.o, noon)
		var e *Error
		if !errors.As(err, &e) || e.Code != c.code || e.Path != c.path || changed || !reflect.DeepEqual(next, s) {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
	}
	last := s
	last.Version = maxVersion
	if next, changed, err := Overlay(last, git, &Override{Patch: map[string]any{}, By: "x"}, noon); err == nil || changed || next.Version != maxVersion {
		t.Errorf("a version after the last: %+v, %v", next.Version, err)
	}
}
