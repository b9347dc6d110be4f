package schema

import (
	"strings"
	"testing"
)

const placed = `package fleet

device: #device & {
	modules: sensor: #sensor & {twin: desired: {interval: "100ms", "odd name": -1}}
	modules: "spare": twin: desired: interval: *"1s" | string
}

#sensor: twin: desired: interval?: string
`

// TestPlaces finds fields however they are written.
func TestPlaces(t *testing.T) {
	tree := Tree{"fleet.cue": []byte("package fleet\n\n#x: twin: desired: interval: \"2s\"\n"), "sites/x/device.cue": []byte(placed),
		"cue.mod/pkg/y/y.cue": []byte("package y\n\ntwin: desired: interval: 1\n"), "broken.cue": []byte("twin: desired: {")}
	var got []string
	for _, p := range tree.Places([]string{"twin", "desired", "interval"}) {
		got = append(got, p.String()+" "+strings.Join(p.Labels, "/"))
		if want := p.File == "fleet.cue" || p.Line == 4; p.Literal != want {
			t.Errorf("%s: literal %v", p, p.Literal)
		}
	}
	want := []string{
		"sites/x/device.cue:4:46 device/modules/sensor/twin/desired/interval",
		"sites/x/device.cue:5:35 device/modules/spare/twin/desired/interval",
		"fleet.cue:3:20 #x/twin/desired/interval",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestWriteChangesNothingElse replaces values, takes one away, and adds a file.
func TestWriteChangesNothingElse(t *testing.T) {
	tree := Tree{"d/device.cue": []byte(placed)}
	write := func(key string, value []byte, want string) {
		t.Helper()
		p := tree.Places([]string{"sensor", "twin", "desired", key})[0]
		out, err := tree.Write(p, value)
		if err != nil || !strings.Contains(string(out["d/device.cue"]), want) {
			t.Errorf("%s: %v\n%s", key, err, out["d/device.cue"])
		}
		if string(tree["d/device.cue"]) != placed {
			t.Error("the tree changed")
		}
	}
	write("interval", []byte(`"200ms"`), `{interval: "200ms", "odd name": -1}`)
	write("odd name", []byte(`5`), `{interval: "100ms", "odd name": 5}`)
	write("odd name", nil, `{interval: "100ms"`)
	write("interval", nil, `desired: {"odd name": -1}`)
	out, err := tree.Append("d/desired.cue", "device: twin: desired: a: 1\n")
	if err != nil || string(out["d/desired.cue"]) != "package fleet\n\ndevice: twin: desired: a: 1\n" {
		t.Errorf("%v\n%s", err, out["d/desired.cue"])
	}
	if _, err := tree.Append("elsewhere/desired.cue", "a: 1\n"); err == nil {
		t.Error("a package was made up")
	}
	if _, err := tree.Append("d/device.cue", "a: {\n"); err == nil {
		t.Error("a file that does not parse")
	}
}
