package twin

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func object(t testing.TB, source string) map[string]any {
	t.Helper()
	o, err := ReadPatch([]byte(source))
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return o
}

// mergePatch is RFC 7396's pseudocode, word for word.
func mergePatch(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	out := map[string]any{}
	for name, value := range t {
		out[name] = value
	}
	for name, value := range p {
		if value == nil {
			delete(out, name)
		} else {
			out[name] = mergePatch(out[name], value)
		}
	}
	return out
}

// The test cases of RFC 7396, Appendix A. Those about values that are no object
// are tried as members of one.
func TestMergeRFC7396(t *testing.T) {
	for _, c := range []struct{ original, patch, result string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`{"e":null}`, `{"a":1}`, `{"a":1}`}, // a twin holds no null
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		for _, wrap := range []string{`%s`, `{"x":%s}`, `{"x":{"y":%s},"z":1}`} {
			if wrap == `%s` && (c.original[0] != '{' || c.patch[0] != '{') {
				continue
			}
			original, _, err := Replace(Section{}, object(t, fmt.Sprintf(wrap, c.original)), MaxSection, noon)
			if err != nil {
				t.Fatal(err)
			}
			before := string(original.append(nil))
			got, _, err := Merge(original, object(t, fmt.Sprintf(wrap, c.patch)), noon)
			if err != nil {
				t.Fatal(err)
			}
			if want := object(t, fmt.Sprintf(wrap, c.result)); !reflect.DeepEqual(plainOf(t, got.Values), plainOf(t, want)) {
				t.Errorf("%s patched with %s is %v, want %v", c.original, c.patch, got.Values, want)
			}
			if after := string(original.append(nil)); after != before {
				t.Errorf("merging changed its argument from %s to %s", before, after)
			}
		}
	}
}

func plainOf(t testing.TB, o map[string]any) map[string]any {
	t.Helper()
	p, err := plain(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestVersionsAndMetadata(t *testing.T) {
	later := noon.Add(time.Hour)
	s, changed, err := Merge(Section{}, object(t, `{"a":1,"b":{"c":2,"d":3},"l":[1,2]}`), noon)
	if err != nil || !changed || s.Version != 1 {
		t.Fatalf("%+v, %v, %v", s, changed, err)
	}
	same, changed, err := Merge(s, object(t, `{"b":{"c":2.0,"x":null},"l":[1,2],"y":null}`), later)
	if err != nil || changed || same.Version != 1 {
		t.Errorf("nothing new: %+v, %v, %v", same, changed, err)
	}
	s, _, err = Merge(s, object(t, `{"b":{"c":4},"a":null,"n":{}}`), later)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"b":{"c":4,"d":3},"l":[1,2],"n":{},"$metadata":{` +
		`"b":{"c":{"$lastUpdated":"2026-03-01T13:00:00.000Z","$lastUpdatedVersion":2},"d":{"$lastUpdated":"2026-03-01T12:00:00.000Z","$lastUpdatedVersion":1}},` +
		`"l":{"$lastUpdated":"2026-03-01T12:00:00.000Z","$lastUpdatedVersion":1},"n":{}},"$version":2}`
	if got := string(s.append(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var back Section
	if err := json.Unmarshal([]byte(want), &back); err != nil || !reflect.DeepEqual(back, s) {
		t.Errorf("read back: %+v, %v\nwant %+v", back, err, s)
	}
	r, changed, err := Replace(s, object(t, `{"b":{"d":3},"l":[1,2]}`), MaxSection, later)
	if err != nil || !changed || r.Version != 3 || !reflect.DeepEqual(r.Values, object(t, `{"b":{"d":3},"l":[1,2]}`)) && len(r.Values) != 2 {
		t.Errorf("replaced: %+v, %v, %v", r, changed, err)
	}
	if _, changed, _ = Replace(r, r.Values, MaxSection, later); changed {
		t.Error("replacing a section by itself is a change")
	}
	if _, _, err := Merge(Section{Version: maxVersion}, object(t, `{"a":1}`), noon); err == nil {
		t.Error("a version after the last")
	}
}

func TestNumbersSurvive(t *testing.T) {
	s, _, err := Merge(Section{}, map[string]any{
		"big": uint64(18446744073709551615), "neg": int64(-9223372036854775808), "int": 7, "float": 0.1,
		"exp": 1e300, "json": json.Number("9007199254740993"), "time": time.Unix(0, 0).UTC(), "strings": []string{"a"},
	}, noon)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"big":18446744073709551615,"exp":1e+300,"float":0.1,"int":7,"json":9007199254740993,"neg":-9223372036854775808,"strings":["a"],"time":"1970-01-01T00:00:00Z"}`
	if got := string(appendValue(nil, s.Values)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	d, err := ReadDocument(Document{Device: "d", Properties: Properties{Reported: s}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if got := string(appendValue(nil, d.Properties.Reported.Values)); got != want {
		t.Errorf("read back %s\nwant %s", got, want)
	}
	var into struct {
		Big uint64 `json:"big"`
	}
	if err := s.Decode(&into); err != nil || into.Big != 18446744073709551615 {
		t.Errorf("decoded %d, %v", into.Big, err)
	}
	if v := s.Values["int"]; v != float64(7) {
		t.Errorf("an integer is a %T", v)
	}
}

func nest(depth int) string {
	return strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)
}

func TestMalformedPatches(t *testing.T) {
	for name, c := range map[string]struct {
		patch string
		code  int
		path  string
	}{
		"empty":            {``, CodeMalformed, ""},
		"no JSON":          {`{"a":`, CodeMalformed, ""},
		"two values":       {`{} {}`, CodeMalformed, ""},
		"trailing":         {`{}x`, CodeMalformed, ""},
		"null":             {`null`, CodeMalformed, ""},
		"array":            {`[]`, CodeMalformed, ""},
		"number":           {`1`, CodeMalformed, ""},
		"string":           {`"a"`, CodeMalformed, ""},
		"binary":           {"\x00\xff\xfe", CodeMalformed, ""},
		"not UTF-8":        {"{\"a\":\"\xff\"}", CodeMalformed, ""},
		"byte order mark":  {"\ufeff{}", CodeMalformed, ""},
		"$ member":         {`{"$version":9}`, CodeMalformed, "$version"},
		"$ below":          {`{"a":{"b":{"c$":1}}}`, CodeMalformed, "a.b.c$"},
		"$ in an array":    {`{"a":[{"$b":1}]}`, CodeMalformed, "a.0.$b"},
		"dot":              {`{"a":{"b.c":1}}`, CodeMalformed, "a.b.c"},
		"control":          {`{"a\u0007":1}`, CodeMalformed, "a\ufffd"},
		"C1 control":       {`{"a\u0085":1}`, CodeMalformed, "a\ufffd"},
		"empty key":        {`{"":1}`, CodeMalformed, ""},
		"long key":         {`{"` + strings.Repeat("k", MaxKey+1) + `":1}`, CodeMalformed, strings.Repeat("k", 64) + "…"},
		"deleting $":       {`{"$metadata":null}`, CodeMalformed, "$metadata"},
		"huge number":      {`{"a":{"b":1e999}}`, CodeMalformed, "a.b"},
		"too deep":         {nest(MaxDepth + 2), CodeTooLarge, strings.TrimSuffix(strings.Repeat("a.", MaxDepth+1), ".")},
		"too deep array":   {`{"a":` + strings.Repeat("[", 11) + strings.Repeat("]", 11) + `}`, CodeTooLarge, "a" + strings.Repeat(".0", 10)},
		"very deep":        {`{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, CodeMalformed, ""},
		"too large":        {`{"a":"` + strings.Repeat("x", MaxSection) + `"}`, CodeTooLarge, ""},
		"far too large":    {`{"a":"` + strings.Repeat("x", MaxPatch) + `"}`, CodeTooLarge, ""},
		"quotes count":     {`{"a":"` + strings.Repeat(`\"`, MaxSection/2) + `"}`, CodeTooLarge, ""},
		"duplicate $ last": {`{"a":1,"$a":2}`, CodeMalformed, "$a"},
	} {
		present, _, err := Merge(Section{}, object(t, `{"was":1}`), noon)
		if err != nil {
			t.Fatal(err)
		}
		patch, err := ReadPatch([]byte(c.patch))
		got := present
		if err == nil {
			got, _, err = Merge(present, patch, noon)
		}
		var e *Error
		if !errors.As(err, &e) || e.Code != c.code || e.Path != c.path {
			t.Errorf("%s: error is %v", name, err)
		} else if len(e.Message) > 300 {
			t.Errorf("%s: message of %d bytes", name, len(e.Message))
		}
		if !reflect.DeepEqual(got, present) {
			t.Errorf("%s: the section changed to %+v", name, got)
		}
	}
	if _, _, err := Merge(Section{}, object(t, nest(MaxDepth+1)), noon); err != nil {
		t.Errorf("the greatest depth: %v", err)
	}
	if _, _, err := Merge(Section{}, object(t, `{"a":"`+strings.Repeat("<", MaxSection-8)+`"}`), noon); err != nil {
		t.Errorf("the greatest size: %v", err)
	}
	for name, patch := range map[string]map[string]any{
		"channel":   {"a": make(chan int)},
		"not a num": {"a": []any{nan()}},
		"bad text":  {"a": "\xff"},
		"bad key":   {"\xff": 1},
	} {
		if _, _, err := Merge(Section{}, patch, noon); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if err := CheckTags(map[string]any{"a": strings.Repeat("x", MaxTags)}); err == nil {
		t.Error("tags of any size are taken")
	}
}

func nan() float64 { zero := 0.0; return zero / zero }

// A whole twin with as much metadata as there can be fits a message.
func TestLargestDocumentFitsAMessage(t *testing.T) {
	const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_:;,/()=!"
	o := map[string]any{}
	for i := range (MaxSection - 2) / len(`"ab":1,`) {
		o[string([]byte{alphabet[i/len(alphabet)], alphabet[i%len(alphabet)]})] = 1
	}
	s, _, err := Merge(Section{Version: maxVersion - 1}, o, noon)
	if err != nil {
		t.Fatal(err)
	}
	over := s
	over.Source, over.Override = strings.Repeat("c", 64), &Override{
		Patch: o, By: strings.Repeat("b", MaxBy), Reason: strings.Repeat("r", MaxReason), At: noon, Until: noon,
	}
	d := Document{Device: strings.Repeat("d", 63), Module: strings.Repeat("m", 63), Properties: Properties{over, s}}
	if n := len(d.Encode()); n > MaxDocument {
		t.Errorf("%d bytes for %d members", n, len(o))
	} else {
		t.Logf("%d bytes for %d members", n, len(o))
	}
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1},"c":[1,null]}`), []byte(`{"a":{"b":null,"d":{}},"c":null}`))
	f.Add([]byte(`{"a":1e3}`), []byte(`{"a":{"b":{"c":null}}}`))
	f.Add([]byte(`{}`), []byte("{\"\xff\":1}"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var s Section
		for i, data := range [][]byte{first, second} {
			patch, err := ReadPatch(data)
			if err != nil {
				wantError(t, err)
				continue
			}
			next, changed, err := Merge(s, patch, noon)
			if err != nil {
				wantError(t, err)
				if !reflect.DeepEqual(next, s) {
					t.Fatal("refused, and changed")
				}
				continue
			}
			p, e := plain(patch)
			if e != nil {
				t.Fatalf("patch %d merged, but is not plain: %v", i, e)
			}
			want := mergePatch(orEmpty(s.Values), p)
			if !reflect.DeepEqual(orEmpty(next.Values), want) {
				t.Fatalf("merged %v, want %v", next.Values, want)
			}
			if changed != (next.Version == s.Version+1) || changed == reflect.DeepEqual(orEmpty(s.Values), want) {
				t.Fatalf("changed %v: from %v at %d to %v at %d", changed, s.Values, s.Version, want, next.Version)
			}
			mirrored(t, next.Values, next.Metadata)
			s = next
			d, err := ReadDocument(Document{Device: "d", Properties: Properties{Desired: s}}.Encode())
			if err != nil {
				t.Fatal(err)
			}
			if s.Values != nil && !reflect.DeepEqual(d.Properties.Desired, s) {
				t.Fatalf("read back %+v, want %+v", d.Properties.Desired, s)
			}
			if !json.Valid(s.append(nil)) {
				t.Fatalf("not JSON: %s", s.append(nil))
			}
		}
	})
}

func wantError(t *testing.T, err error) {
	var e *Error
	if !errors.As(err, &e) || e.Code == 0 || e.Message == "" {
		t.Fatalf("error is %v", err)
	}
}

// mirrored checks that metadata has the same shape as values.
func mirrored(t *testing.T, values, metadata map[string]any) {
	if len(values) != len(metadata) {
		t.Fatalf("metadata %v of %v", metadata, values)
	}
	for key, v := range values {
		m, ok := metadata[key].(map[string]any)
		if !ok {
			t.Fatalf("no metadata of %q", key)
		}
		if o, ok := v.(map[string]any); ok {
			mirrored(t, o, m)
		} else if m["$lastUpdatedVersion"] == nil {
			t.Fatalf("metadata of %q is %v", key, m)
		}
	}
}

func FuzzReadDocument(f *testing.F) {
	f.Add([]byte(`{"device":"d","properties":{"desired":{"a":1,"$version":2,"$metadata":{}},"reported":{}}}`))
	f.Add([]byte(`{"properties":{"desired":{"$version":-1}}}`))
	f.Add([]byte(`{"properties":{"desired":null,"reported":[]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := ReadDocument(data)
		if err != nil {
			return
		}
		again, err := ReadDocument(d.Encode())
		if err == nil && string(again.Encode()) != string(d.Encode()) {
			t.Fatalf("%s reads back as %s", d.Encode(), again.Encode())
		}
		_, _ = ReadAnswer(data)
		_ = d.Properties.Desired.Decode(&struct{}{})
	})
}

func TestMalformedDocuments(t *testing.T) {
	for _, source := range []string{
		``, `[]`, `{"device":1}`, `{"properties":{"desired":[]}}`, `{"properties":{"desired":{"$version":-1}}}`,
		`{"properties":{"desired":{"$version":1.5}}}`, `{"properties":{"desired":{"$version":1e30}}}`, `{"properties":{"desired":{"$version":"1"}}}`,
		`{"properties":{"desired":{"$metadata":1}}}`, `{"properties":{"reported":{"$source":{}}}}`, `{} {}`,
		`{"device":"` + strings.Repeat("x", MaxDocument) + `"}`,
	} {
		if _, err := ReadDocument([]byte(source)); err == nil {
			t.Errorf("%.60s is taken", source)
		}
	}
	for _, source := range []string{``, `[]`, `{"version":-1}`, `{"version":"x"}`, `{"error":1}`, `{"error":{"code":422,"message":"m"}}`, strings.Repeat(" ", MaxDocument) + "{}"} {
		if _, err := ReadAnswer([]byte(source)); err == nil {
			t.Errorf("%.60s is taken", source)
		}
	}
	e := &Error{Code: CodeSchema, Path: "a.b", Message: "m"}
	if e.Error() != "a.b: m (422)" {
		t.Errorf("error reads %q", e)
	}
}
