package schema_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/tidemark-edge/tidemark/schema"
)

func object(t testing.TB, s string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(s), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// fleetWith is a repository with one module whose twin is as given.
func fleetWith(top, twin string) fstest.MapFS {
	tree := fstest.MapFS{
		"cue.mod/module.cue": {Data: []byte(goldenModule)},
		"d1/device.cue": {Data: []byte("package fleet\n\nimport (\n\t\"github.com/tidemark-edge/tidemark/schema\"\n\t\"strings\"\n)\n\n_s: strings.MinRunes(0)\n" + top + `
device: schema.#Device & {
	name: "d1"
	modules: m: {
		image: "registry.example.com/app@sha256:` + strings.Repeat("0", 64) + `"
		twin: ` + twin + `
	}
}
`)},
	}
	for name, source := range schema.Definitions() {
		tree[vendored+"/"+name] = &fstest.MapFile{Data: source}
	}
	return tree
}

// TestReported takes schemas the whole way: from a fleet repository over the
// source in Desired to the verdict on documents.
func TestReported(t *testing.T) {
	for name, c := range map[string]struct {
		top, twin string
		docs      map[string]string // document: what the error names, empty for none
	}{
		"none":          {"", "{}", map[string]string{`{"a": {"b": [1, null]}}`: "", `{}`: ""}},
		"closed":        {"", "#reported: {temperature?: number, inner?: {a?: int}}", map[string]string{`{}`: "", `{"temperature": 21.5}`: "", `{"temperature": 21}`: "", `{"temprature": 1}`: "temprature: field not allowed", `{"temperature": "x"}`: "temperature: ", `{"inner": {"b": 1}}`: "inner.b: field not allowed"}},
		"nothing":       {"", "#reported: {}", map[string]string{`{}`: "", `{"a": 1}`: "a: field not allowed"}},
		"open":          {"", "#reported: {a?: int, ...}", map[string]string{`{"b": 1}`: "", `{"a": 1, "b": 1}`: "", `{"a": "x"}`: "a: "}},
		"required":      {"", "#reported: {a!: int, b: string}", map[string]string{`{"a": 1, "b": "x"}`: "", `{"b": "x"}`: "a: field is required", `{"a": 1}`: "b: incomplete value string"}},
		"bounds":        {"", "#reported: {t?: >=-40 & <=125, s?: \"on\" | \"off\", n?: int & >0}", map[string]string{`{"t": -40, "s": "on", "n": 1}`: "", `{"t": 126}`: "t: ", `{"s": "of"}`: `s: "of" is none of "off", "on"`, `{"n": 1.5}`: "n: ", `{"n": 0}`: "n: "}},
		"references":    {"#T: >=-40 & <=125\n#common: {label?: strings.MaxRunes(3), t?: #T}", "#reported: {#common, list?: [...#T]}", map[string]string{`{"label": "abc", "t": 1, "list": [1, 2]}`: "", `{"label": "abcd"}`: "label: ", `{"list": [1, 200]}`: "list.1: ", `{"x": 1}`: "x: field not allowed"}},
		"pattern":       {"", `#reported: {[=~"^s[0-9]$"]: number}`, map[string]string{`{"s1": 1}`: "", `{"s1": "x"}`: "s1: ", `{"t1": 1}`: "t1: field not allowed"}},
		"alternatives":  {"", `#reported: {kind: "a", x?: int} | {kind: "b", y?: int}`, map[string]string{`{"kind": "a", "x": 1}`: "", `{"kind": "b", "y": 1}`: "", `{"kind": "b", "x": 1}`: "field not allowed"}},
		"odd names":     {"", `#reported: {"a b"?: int, "_c"?: int, "$d"?: int, "0"?: int}`, map[string]string{`{"a b": 1, "_c": 2, "$d": 3, "0": 4}`: "", `{"a b": "x"}`: `"a b": `}},
		"strings":       {"", `#reported: {s?: string}`, map[string]string{`{"s": "\u0000 \\( \" \u2028 \ud83d\ude00 \ud800"}`: "", `{"s": 1}`: "s: "}},
		"default value": {"", `#reported: {s: *"x" | string}`, map[string]string{`{}`: "", `{"s": "y"}`: ""}},
	} {
		t.Run(name, func(t *testing.T) {
			desired, err := schema.Load(context.Background(), fleetWith(c.top, c.twin), "d1")
			if err != nil {
				t.Fatal(err)
			}
			s, err := schema.CompileReported(desired.Modules[0].Twin.Reported)
			if err != nil {
				t.Fatalf("%v\n%s", err, desired.Modules[0].Twin.Reported)
			}
			for doc, want := range c.docs {
				err := s.Check(object(t, doc))
				if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("%s: got %v, want %q", doc, err, want)
				}
			}
		})
	}
}

// TestReportedStaysCheap: what could take long is refused when the commit is
// rendered, not when a module reports.
func TestReportedStaysCheap(t *testing.T) {
	deep := func(n int, line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i) + "\n")
		}
		return b.String()
	}
	for name, source := range map[string]string{
		"for":            `{a?: int, b?: [for x in [1, 2] {x}]}`,
		"if":             `{a?: int, if true {b?: int}}`,
		"range":          "import \"list\"\n{n?: int, x?: list.Range(0, n, 1)}",
		"repeat":         "import \"strings\"\n{n?: int, x?: strings.Repeat(\"x\", n)}",
		"renamed import": "import strings \"list\"\n{x?: strings.Range(0, 9, 1)}",
		"hidden import":  "import struct \"list\"\n{x?: struct.MaxFields(3)}",
		"arithmetic":     `{a?: int, b?: a * 1000}`,
		"concatenation":  `{a: "xx", b: a + a}`,
		"interpolation":  `{a?: string, b?: "\(a)\(a)"}`,
		"recursion":      `{#t: {x?: #t}, x?: #t}`,
		"mutual":         `{#a: {x?: #b}, #b: {x?: #a}, y?: #a}`,
		"laughs":         "{" + deep(20, func(i int) string { return fmt.Sprintf("#a%d: {x?: #a%d, y?: #a%d}", i+1, i, i) }) + "#a0: {z?: int}\n}",
		"alternatives":   "{x?: " + strings.TrimSuffix(strings.Repeat("({a: 1} | {b: 2}) & ", 12), " & ") + "}",
		"big number":     `{x?: <1e999999999}`,
		"long number":    `{x?: <` + strings.Repeat("9", 1000) + `}`,
		"many fields":    "{" + deep(3000, func(i int) string { return fmt.Sprintf("f%d?: int", i) }) + "}",
		"too long":       "{" + strings.Repeat(" ", 40_000) + "}",
		"not an object":  `int`,
		"a list":         `[...int]`,
		"contradiction":  `{a: 1, a: 2}`,
		"undefined":      `{a?: nonsense}`,
		"does not parse": `{a?: `,
		"package":        "package x\n{}",
		"computed field": `{"\(x)": 1, x: "y"}`,
		"dynamic field":  `{(x): 1, x: "y"}`,
		"nesting":        strings.Repeat("{a:", 11_000),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := schema.CompileReported(source)
			var invalid *schema.InvalidError
			if !errors.As(err, &invalid) {
				t.Errorf("got %v, want an InvalidError", err)
			}
		})
	}
}

// TestReportedWorkIsBounded: a large document meets a large schema.
func TestReportedWorkIsBounded(t *testing.T) {
	var fields strings.Builder
	for i := range 500 {
		fmt.Fprintf(&fields, "f%d?: int\n", i)
	}
	s, err := schema.CompileReported("{[string]: {" + fields.String() + "}}")
	if err != nil {
		t.Fatal(err)
	}
	doc := map[string]any{}
	for i := range 5000 {
		doc[fmt.Sprint("k", i)] = map[string]any{}
	}
	if err := s.Check(doc); err == nil || !strings.Contains(err.Error(), "too large for its schema") {
		t.Errorf("got %v", err)
	}
}

func TestReportedConcurrently(t *testing.T) {
	s, err := schema.CompileReported(`{[=~"^k"]: string}`)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				good := map[string]any{fmt.Sprintf("k%d-%d", g, i): strings.Repeat("x", 2000)}
				if err := s.Check(good); err != nil {
					t.Error(err)
				}
				if err := s.Check(map[string]any{"other": "x"}); err == nil {
					t.Error("accepted a field that is not allowed")
				}
			}
		})
	}
	wg.Wait()
}

// TestReportedNamesAreBounded: CUE keeps every field name for ever, so a module
// that makes up new ones without end is stopped, and only with these.
func TestReportedNamesAreBounded(t *testing.T) {
	s, err := schema.CompileReported(`{rate?: int, ...}`)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100_000 {
		if err = s.Check(map[string]any{fmt.Sprintf("at %d", i): 1}); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "different field names") {
		t.Errorf("got %v", err)
	}
	if err := s.Check(map[string]any{"rate": 1, "at 0": 2}); err != nil {
		t.Errorf("known names: %v", err)
	}
	if err := s.Check(map[string]any{"rate": "x"}); err == nil {
		t.Error("accepted a value that is not allowed")
	}
}

func FuzzReported(f *testing.F) {
	f.Add(`{temperature?: number}`, `{"temperature": 1}`)
	f.Add("import \"strings\"\n{s?: strings.MaxRunes(3), ...}", `{"s": "x"}`)
	f.Add(`{kind: "a"} | {kind: "b"}`, `{"kind": "a"}`)
	f.Fuzz(func(t *testing.T, source, doc string) {
		var m map[string]any
		if len(doc) > 4096 || json.Unmarshal([]byte(doc), &m) != nil {
			return
		}
		s, err := schema.CompileReported(source)
		if err != nil {
			return
		}
		_ = s.Check(m)
	})
}

func BenchmarkReportedCheck(b *testing.B) {
	s, err := schema.CompileReported(`{temperature?: >=-40 & <=125, state?: "on" | "off", readings?: int & >0}`)
	if err != nil {
		b.Fatal(err)
	}
	doc := object(b, `{"temperature": 21.5, "state": "on", "readings": 17}`)
	for b.Loop() {
		if err := s.Check(doc); err != nil {
			b.Fatal(err)
		}
	}
}
