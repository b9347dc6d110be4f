package condition

import (
	"strings"
	"testing"
	"time"
)

func TestHolds(t *testing.T) {
	const body = `{"temperature": 31.5, "count": 3, "unit": "C", "tags": ["a", "b"], "inner": {"ok": true}, "none": null}`
	for _, tt := range []struct {
		source, body string
		want         bool
		err          string // part of it
	}{
		{`true`, body, true, ""},
		{`body.temperature > 30`, body, true, ""},
		{`body.temperature > 30.0 && headers["kind"] == "alarm"`, body, true, ""},
		{`body.count == 3 && body.count >= 3 && body.count < 4`, body, true, ""},
		{`body.unit in ["F", "K"]`, body, false, ""},
		{`body.tags.exists(t, t == "b")`, body, true, ""},
		{`has(body.x) && body.x.y > 3`, body, false, ""},
		{`body.inner.ok`, body, true, ""},
		{`body.none == null`, body, true, ""},
		{`body == null`, "not JSON", true, ""},
		{`body == null`, "", true, ""},
		{`body == null`, "null", true, ""},
		{`body == null`, `{"a":1} trailing`, true, ""},
		{`body == null`, body, false, ""},
		{`body == 7`, "7", true, ""},
		{`body == "x"`, `"x"`, true, ""},
		{`module == "camera" && output.startsWith("al")`, "", true, ""},
		{`headers["kind"].lowerAscii() == "alarm"`, "", true, ""},
		{`body.?missing.orValue(1) == 1`, body, true, ""},
		{`headers["none"] == ""`, "", false, "no such key"},
		{`body.missing == 1`, body, false, "no such key"},
		{`body.unit > 3`, body, false, "no such overload"},
		{`body.unit`, body, false, "of type string"},
		{`body.x == 1`, "not JSON", false, "no such"},
		{`size(body) > 2`, "[1,2,3]", true, ""},
	} {
		c, err := Compile(tt.source)
		if err != nil {
			t.Errorf("%s: %v", tt.source, err)
			continue
		}
		got, err := c.Holds("camera", "alarms", map[string]string{"kind": "alarm"}, []byte(tt.body))
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s of %s: %v, %v", tt.source, tt.body, got, err)
		}
	}
}

func TestCompileSaysWhere(t *testing.T) {
	for source, want := range map[string]string{
		`body.temperature >`:       "condition: 1:19: ",
		`bodyy == 1`:               "condition: 1:1: undeclared reference to 'bodyy'",
		"module == \"a\" &&\n x":   "condition: 2:2: undeclared reference to 'x'",
		`"a" + 1`:                  "condition: 1:5: found no matching overload",
		`1 + 1`:                    "condition: 1:1: it is of type int: want one that is true or false",
		``:                         "condition: it is empty",
		" \n":                      "condition: it is empty",
		`headers["a"] == 1`:        "condition: 1:14: found no matching overload",
		strings.Repeat("(", 1000):  "condition: ",
		strings.Repeat("!", 3000):  "condition: ",
		strings.Repeat("a", 5000):  "condition: 5000 bytes are more than",
		`[1,2].all(a, b, c, d)`:    "condition: 1:",
		`timestamp("2020-01-01")`:  "condition: 1:1: it is of type",
		`a == 1 && b == 1 && c==d`: "and 1 more",
	} {
		if _, err := Compile(source); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", source, err, want)
		}
	}
}

// TestCostIsBounded has conditions that would take for ever.
func TestCostIsBounded(t *testing.T) {
	list := "[" + strings.Repeat("1,", 2000) + "1]"
	for _, source := range []string{
		`body.all(a, body.all(b, body.all(c, a + b + c > 0.0)))`,
		`body.map(a, body.map(b, body)).size() > 1`,
	} {
		c, err := Compile(source)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if holds, err := c.Holds("m", "o", nil, []byte(list)); holds || err == nil || !strings.Contains(err.Error(), "cost limit") {
			t.Errorf("%s: %v, %v after %v", source, holds, err, time.Since(start))
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	c, err := Compile(`body.n == 1 && module == "m"`)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	for range 4 {
		go func() {
			ok := true
			for range 1000 {
				holds, err := c.Holds("m", "o", nil, []byte(`{"n":1}`))
				ok = ok && holds && err == nil
			}
			done <- ok
		}()
	}
	for range 4 {
		if !<-done {
			t.Error("it does not hold")
		}
	}
}

func FuzzCondition(f *testing.F) {
	f.Add(`body.a > 1`, []byte(`{"a": 2}`))
	f.Add(`body.all(a, a.b == "c")`, []byte(`[{"b": "c"}]`))
	f.Add(`headers["x"].matches("a+b")`, []byte(``))
	f.Fuzz(func(t *testing.T, source string, body []byte) {
		c, err := Compile(source)
		if err != nil {
			return
		}
		if holds, err := c.Holds("m", "o", map[string]string{"x": "y"}, body); holds && err != nil {
			t.Error("it holds, with an error")
		}
	})
}
