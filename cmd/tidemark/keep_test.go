package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

const keepDevice = `package fleet

import "github.com/tidemark-edge/tidemark/schema"

device: #device & {
	name: "d1"
	modules: {
		one: #sensor
		two: #sensor
		own: schema.#Module & {
			image: #image
			twin: desired: {interval: "1s", old: true, "odd name": 1}
		}
	}
}

#sensor: schema.#Module & {
	image: #image
	twin: desired: interval: "100ms"
}
`

// keepFleet is a repository with the devices d1 and d2, which share a layer.
func keepFleet(t *testing.T) string {
	t.Helper()
	files, err := schema.Scaffold{Site: "x", Device: "d1"}.Files()
	if err != nil {
		t.Fatal(err)
	}
	files["sites/x/d1/device.cue"] = []byte(keepDevice)
	files["images.cue"] = []byte("package fleet\n\n#image: \"r.example.com/a@sha256:" + strings.Repeat("a", 64) + "\"\n")
	files["sites/x/d2/device.cue"] = []byte("package fleet\n\ndevice: #device & {name: \"d2\"}\n")
	files["sites/x/level.cue"] = []byte("package fleet\n\n#device: twin: desired: level: *1 | int\n#device: twin: desired: hall: 3\n")
	dir := t.TempDir()
	for name, source := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, source, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func overriddenTwin(module string, patch map[string]any) twin.Document {
	d := twin.Document{Device: "d1", Module: module}
	d.Properties.Desired.Override = &twin.Override{Patch: patch, By: "anna", Reason: "too loud"}
	return d
}

// TestExportChangesOnlyWhatIsTheDevicesOwn: what was set on one device must not reach
// others by the commit that keeps it.
func TestExportChangesOnlyWhatIsTheDevicesOwn(t *testing.T) {
	dir := keepFleet(t)
	desired := func(device, module string) map[string]any {
		tree, err := schema.ReadTree(t.Context(), os.DirFS(dir))
		if err != nil {
			t.Fatal(err)
		}
		d, err := tree.Load(t.Context(), device, "")
		if err != nil {
			t.Fatal(err)
		}
		return (&export{module: module}).desired(d)
	}
	for name, c := range map[string]struct {
		module  string
		patch   map[string]any
		changed []string
		left    string
		then    map[string]any
	}{
		"a literal, one taken away, one that is new": {"own", map[string]any{"interval": "2s", "old": nil, "odd name": 2.5, "filter": map[string]any{"window": 3.0}},
			[]string{"sites/x/d1/desired-own.cue", "sites/x/d1/device.cue"}, "",
			map[string]any{"interval": "2s", "odd name": 2.5, "filter": map[string]any{"window": 3.0}}},
		"another module has it too": {"one", map[string]any{"interval": "200ms"}, nil,
			"device: modules: one: twin: desired: interval: \"200ms\": others share the value at sites/x/d1/device.cue:19:17", map[string]any{"interval": "100ms"}},
		"a layer's default, and a layer's value": {"", map[string]any{"level": 5.0, "hall": 4.0}, []string{"sites/x/d1/desired.cue"},
			"device: twin: desired: hall: 4: others share the value at sites/x/level.cue:4:25", map[string]any{"level": 5.0, "hall": 3.0}},
	} {
		changed, left, err := exportTo(t.Context(), dir, overriddenTwin(c.module, c.patch))
		if err != nil || !slices.Equal(changed, c.changed) || strings.Join(left, "\n") != c.left {
			t.Errorf("%s: changed %v, left %v, %v", name, changed, left, err)
		}
		if got := desired("d1", c.module); !sameJSON(got, c.then) {
			t.Errorf("%s: desired is %v, want %v", name, got, c.then)
		}
		// The same again changes nothing more.
		if changed, _, err := exportTo(t.Context(), dir, overriddenTwin(c.module, c.patch)); err != nil || len(changed) > 0 {
			t.Errorf("%s, again: changed %v, %v", name, changed, err)
		}
	}
	if got := desired("d2", ""); !sameJSON(got, map[string]any{"level": 1.0, "hall": 3.0}) {
		t.Errorf("another device: %v", got)
	}
	if _, _, err := exportTo(t.Context(), t.TempDir(), overriddenTwin("own", nil)); err == nil || !strings.Contains(err.Error(), "no fleet repository") {
		t.Errorf("no repository: %v", err)
	}
}

// TestExportPrintsCUE that can be pasted into the device's definition.
func TestExportPrintsCUE(t *testing.T) {
	got := cueOf(overriddenTwin("own", map[string]any{"a": map[string]any{"odd-name": "<1>", "b": nil}, "c": []any{1.0}}))
	want := `// set on d1 by anna at 0001-01-01T00:00:00Z: too loud
// take away device: modules: own: twin: desired: a: b
device: modules: own: twin: desired: a: "odd-name": "<1>"
device: modules: own: twin: desired: c: [1]
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestPersonExports what was set on the device.
func TestPersonExports(t *testing.T) {
	d := newDesk(t)
	if _, err := d.types("twin", "export", "m"); err == nil || !strings.Contains(err.Error(), "nothing is overridden") {
		t.Errorf("nothing: %v", err)
	}
	if _, err := d.types("twin", "set", "m", "interval=200ms", "--for", "8h", "--reason", "too loud", "--by", "anna"); err != nil {
		t.Fatal(err)
	}
	if said, err := d.types("twin", "export", "m"); err != nil || !strings.Contains(said, "\ndevice: modules: m: twin: desired: interval: \"200ms\"\n") {
		t.Errorf("%q, %v", said, err)
	}
}
