package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf"
)

// desk is a device with the module m, and a person's terminal on it.
type desk struct {
	*testing.T
	leaf   *leaf.Leaf
	runDir string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	run, err := os.MkdirTemp("/dev/shm", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	l, err := leaf.Open(t.Context(), leaf.Config{Device: "d1", StateDir: t.TempDir(), RunDir: run, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	m := methods{leaf: l, reconciler: &reconciler.Reconciler{}}
	if err := m.handle(); err != nil {
		t.Fatal(err)
	}
	module := schema.Module{Name: "m", Twin: schema.TwinSpec{Desired: map[string]any{"interval": "100ms", "filter": map[string]any{"window": 3.0}}}}
	if err := l.Declare(t.Context(), schema.Desired{Device: "d1", Revision: schema.Revision{Commit: "c1"}, Modules: []schema.Module{module}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Identity(t.Context(), "m", 0, 0); err != nil {
		t.Fatal(err)
	}
	return &desk{t, l, run}
}

// types runs a command line and returns what it prints.
func (d *desk) types(line ...string) (string, error) {
	d.Helper()
	var out bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append(line, "--run-dir", d.runDir))
	err := root.ExecuteContext(d.Context())
	return out.String(), err
}

func (d *desk) desired() map[string]any {
	d.Helper()
	for _, doc := range d.leaf.Documents() {
		if doc.Module == "m" {
			return doc.Properties.Desired.Values
		}
	}
	d.Fatal("there is no twin of m")
	return nil
}

// TestPersonOverridesDesired: what was changed on the device by hand has a name and a
// reason, and can be taken back (iotedge#645).
func TestPersonOverridesDesired(t *testing.T) {
	d := newDesk(t)
	said, err := d.types("twin", "set", "m", "interval=200ms", "filter.window=null", "filter.kind=median", "--for", "8h", "--reason", "too loud", "--by", "anna")
	if err != nil || !strings.HasPrefix(said, "desired of m, set by anna at ") || !strings.HasSuffix(said, ": too loud\n") || !strings.Contains(said, ", until ") {
		t.Fatalf("%q, %v", said, err)
	}
	if got, _ := json.Marshal(d.desired()); string(got) != `{"filter":{"kind":"median"},"interval":"200ms"}` {
		t.Errorf("desired is %s", got)
	}
	if said, err = d.types("twin", "get", "m"); err != nil || !strings.Contains(said, "drift: desired of m, set by anna") {
		t.Errorf("%q, %v", said, err)
	}
	if said, err = d.types("twin", "set", "m", "interval=1s", "--for", "unset", "--reason", "louder", "--by", "bert"); err != nil || !strings.Contains(said, "it replaces what anna set") {
		t.Errorf("%q, %v", said, err)
	}
	if got, _ := json.Marshal(d.desired()); string(got) != `{"filter":{"window":3},"interval":"1s"}` {
		t.Errorf("desired is %s", got)
	}
	if _, err = d.types("twin", "set", "nosuch", "a=1", "--for", "1h", "--reason", "x"); err == nil || !strings.Contains(err.Error(), "no such module is declared") {
		t.Errorf("a module that is not declared: %v", err)
	}
	if _, err = d.types("twin", "set", ".", "hall=4", "--for", "1h", "--reason", "moved"); err != nil {
		t.Errorf("the device's own: %v", err)
	}
	if said, err = d.types("twin", "unset", "m"); err != nil || !strings.HasPrefix(said, "ended: desired of m, set by bert") {
		t.Errorf("%q, %v", said, err)
	}
	if got, _ := json.Marshal(d.desired()); string(got) != `{"filter":{"window":3},"interval":"100ms"}` {
		t.Errorf("desired is %s", got)
	}
	if _, err = d.types("twin", "unset", "m"); err == nil || !strings.Contains(err.Error(), "there is no override") {
		t.Errorf("twice: %v", err)
	}
}

// TestPersonRotatesAKey also sees it in the list.
func TestPersonRotatesAKey(t *testing.T) {
	d := newDesk(t)
	list := func() []leaf.ModuleIdentity {
		var all []leaf.ModuleIdentity
		said, err := d.types("identity", "list", "-o", "json")
		if err != nil || json.Unmarshal([]byte(said), &all) != nil || len(all) != 1 {
			t.Fatalf("%q, %v", said, err)
		}
		return all
	}
	before := list()[0].PublicKey
	said, err := d.types("identity", "rotate", "m", "--grace", "10m", "--reason", "visit")
	if err != nil || !strings.Contains(said, before+" is good until ") {
		t.Errorf("%q, %v", said, err)
	}
	if now := list()[0]; now.PublicKey == before || len(now.Old) != 1 || now.Old[0].PublicKey != before {
		t.Errorf("after the rotation: %+v", now)
	}
	if said, err = d.types("identity", "rotate", "m", "--grace", "0s"); err != nil || strings.Contains(said, "is good until") && strings.Count(said, "is good until") > 1 {
		t.Errorf("%q, %v", said, err)
	}
}

// TestPersonCallsAMethod of a module, and hears at once when nobody is there.
func TestPersonCallsAMethod(t *testing.T) {
	d := newDesk(t)
	conn, err := d.leaf.Connect("m")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	serve := func(name string, f func(*nats.Msg)) {
		if _, err := conn.Subscribe(twin.Prefix("d1", "m")+".rpc."+name, f); err != nil || conn.Flush() != nil {
			t.Fatal(err)
		}
	}
	serve("echo", func(m *nats.Msg) { _ = m.Respond(append([]byte(m.Header.Get(twin.HeaderTimeout)+" "), m.Data...)) })
	serve("refuse", func(m *nats.Msg) {
		_ = m.Respond(twin.Refusal(&twin.Error{Code: twin.CodeRefused, Message: "not today"}))
	})
	if said, err := d.types("call", "m/echo", `{"a":1}`, "--timeout", "5s"); err != nil || said != "5s {\"a\":1}\n" {
		t.Errorf("%q, %v", said, err)
	}
	if said, err := d.types("call", "d1/m/echo", "-o", "json"); err != nil || !strings.Contains(said, `"answer": "30s {}"`) {
		t.Errorf("%q, %v", said, err)
	}
	if _, err := d.types("call", "m/refuse"); err == nil || !strings.HasSuffix(err.Error(), "call refuse of /devices/d1/modules/m: not today") {
		t.Errorf("refused: %v", err)
	}
	if _, err := d.types("call", "m/nosuch"); err == nil || !strings.Contains(err.Error(), "nobody answers it") {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := d.types("call", "elsewhere/m/echo"); err == nil || !strings.Contains(err.Error(), "over its hub") {
		t.Errorf("another device: %v", err)
	}
}

// TestHarmless: what a module sends may be meant to harm who looks at it.
func TestHarmless(t *testing.T) {
	if got := harmless("a\x1b[2Jb\u009bc\xff\n"); got != "a[2Jbc\ufffd\n" {
		t.Errorf("%q", got)
	}
}

// TestPatchOfPairs has the pairs that cannot be one patch, too.
func TestPatchOfPairs(t *testing.T) {
	for pairs, want := range map[string]string{
		"a=1 b=x c=null":                  `{"a":1,"b":"x","c":null}`,
		`a.b.c=true a.b.d={"e":[1]} a.f=`: `{"a":{"b":{"c":true,"d":{"e":[1]}},"f":""}}`,
		"a=1 a=2":                         "",
		"a=1 a.b=2":                       "",
		"a.b=2 a=1":                       "",
		"a..b=1":                          "",
		"a":                               "",
		"=1":                              "",
	} {
		patch, err := patchOf(strings.Fields(pairs))
		got, _ := json.Marshal(patch)
		if want == "" && err == nil || want != "" && (err != nil || string(got) != want) {
			t.Errorf("%s: %s, %v, want %s", pairs, got, err, want)
		}
	}
}

// TestWatchShowsWhatChanged as a merge patch.
func TestWatchShowsWhatChanged(t *testing.T) {
	var out bytes.Buffer
	seen := map[string]twin.Document{}
	doc := func(version uint64, values map[string]any) twin.Document {
		d := twin.Document{Device: "d1", Module: "m"}
		d.Properties.Reported = twin.Section{Version: version, Values: values}
		return d
	}
	for _, d := range []twin.Document{
		doc(1, map[string]any{"a": 1.0, "b": map[string]any{"c": 2.0, "d": 3.0}}),
		doc(1, nil), // the same version: not news
		doc(2, map[string]any{"b": map[string]any{"c": 2.0, "d": 4.0}}),
	} {
		if err := showChange(&out, "text", seen, d); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[2], `/devices/d1/modules/m reported 2 {"a":null,"b":{"d":4}}`) {
		t.Errorf("%s", out.String())
	}
}

// TestPersonNamesATwin in each way that there is, on the device.
func TestPersonNamesATwin(t *testing.T) {
	d := newDesk(t)
	for name, want := range map[string]string{
		"m": "/devices/d1/modules/m", "d1/m": "/devices/d1/modules/m", "d1": "/devices/d1", ".": "/devices/d1", "": "/devices/d1",
	} {
		line := append([]string{"twin", "get"}, strings.Fields(name)...)
		if said, err := d.types(line...); err != nil || !strings.HasPrefix(said, "twin of "+want+"\n") {
			t.Errorf("%q: %q, %v", name, said, err)
		}
	}
	for name, want := range map[string]string{
		"nosuch": "device d1 has no module nosuch", "d1/nosuch": "device d1 has no module nosuch", "d2/m": "this is d1", "d1/m/x": `name "m/x"`, "d1/": `name ""`, "M": `name "M"`,
	} {
		if said, err := d.types("twin", "get", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v", name, said, err)
		}
	}
}
