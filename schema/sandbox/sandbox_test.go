package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// TestMain lets the test binary be the child.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "evaluate":
			os.Exit(Main(os.Stdin, os.Stdout))
		case "noise":
			fmt.Print("\x00\x00\x00\x05hello")
			os.Exit(0)
		case "flood":
			flood(os.Stdout)
		case "silence":
			_, _ = io.Copy(io.Discard, os.Stdin)
			select {}
		case "end":
			fmt.Fprintln(os.Stderr, "no reason")
			os.Exit(7)
		}
	}
	os.Exit(m.Run())
}

func flood(w io.Writer) {
	for {
		if _, err := w.Write([]byte(strings.Repeat("\xff", 1<<16))); err != nil {
			os.Exit(1)
		}
	}
}

const image = "registry.example.com/app@sha256:0000000000000000000000000000000000000000000000000000000000000000"

// fleet is a repository in which each device's file has the given body.
func fleet(devices map[string]string) fstest.MapFS {
	tree := fstest.MapFS{
		"cue.mod/module.cue": {Data: []byte("module: \"example.com/fleet@v0\"\nlanguage: version: \"v0.17.0\"\n")},
		"fleet.cue":          {Data: []byte("package fleet\n\nimport \"github.com/tidemark-edge/tidemark/schema\"\n\n#device: schema.#Device\n")},
	}
	for name, source := range schema.Definitions() {
		tree["cue.mod/pkg/"+schema.DefinitionsPath+"/"+name] = &fstest.MapFile{Data: source}
	}
	for name, body := range devices {
		tree["devices/"+name+"/device.cue"] = &fstest.MapFile{Data: []byte("package fleet\n\n" + body)}
	}
	return tree
}

func modules(n int) string {
	var b strings.Builder
	b.WriteString("device: #device & {\n\tname: \"d1\"\n")
	for i := range n {
		fmt.Fprintf(&b, `	modules: m%d: {
		image: "registry.example.com/app@sha256:%064x"
		env: {RATE: "%d", MODE: "fast"}
		limits: memory: 64Mi
		mounts: "/data": volume: "data"
		dependsOn: m0: {}
		twin: {desired: rate: %d, #reported: {temperature?: number, state?: "on" | "off"}}
	}
`, i+1, i, i, i)
	}
	b.WriteString("\tmodules: m0: image: \"" + image + "\"\n}\n")
	return b.String()
}

func TestRenderIsLoad(t *testing.T) {
	tree := fleet(map[string]string{"d1": modules(20)})
	want, err := schema.Load(context.Background(), tree, "d1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Renderer{}.Render(context.Background(), tree, "d1")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if _, err := (Renderer{Dir: "devices/d1"}).Render(context.Background(), tree, "d1"); err != nil {
		t.Error(err)
	}
}

func TestErrorsKeepTheirPlaces(t *testing.T) {
	tree := fleet(map[string]string{"d1": "device: #device & {\n\tname: \"d1\"\n\tmodules: a: {image: \"a:1\", stattus: \"x\"}\n}\n"})
	_, want := schema.Load(context.Background(), tree, "d1")
	_, got := Renderer{}.Render(context.Background(), tree, "d1")
	var invalid *schema.InvalidError
	if !errors.As(got, &invalid) || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %#v\nwant %#v", got, want)
	}
	if !strings.Contains(got.Error(), "devices/d1/device.cue:5:22: device.modules.a.image: ") {
		t.Errorf("no place: %v", got)
	}
}

// What a module says of its health crosses the boundary, too.
func TestRenderKeepsProbes(t *testing.T) {
	tree := fleet(map[string]string{"d1": `device: #device & {
	name: "d1"
	deadline: "3m"
	keep: ["` + image + `"]
	modules: a: {
		image: "` + image + `"
		health: {startup: exec: command: ["/a", "b"], liveness: http: port: 80, readiness: nats: {}}
		update: strategy: "recreate"
	}
}
`})
	want, err := schema.Load(context.Background(), tree, "d1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Renderer{}.Render(context.Background(), tree, "d1")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) || len(got.Keep) != 1 || got.Modules[0].Health.Startup == nil {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Modules that wait for each other are refused when the agent renders, with the
// whole circle.
func TestCircleIsPrinted(t *testing.T) {
	var b strings.Builder
	b.WriteString("device: #device & {\n\tname: \"d1\"\n\tmodules: [_]: image: \"" + image + "\"\n")
	for i := range 9 {
		fmt.Fprintf(&b, "\tmodules: m%d: dependsOn: m%d: condition: \"healthy\"\n", i, (i+1)%9)
	}
	b.WriteString("}\n")
	_, err := Renderer{}.Render(context.Background(), fleet(map[string]string{"d1": b.String()}), "d1")
	var invalid *schema.InvalidError
	if !errors.As(err, &invalid) {
		t.Fatalf("got %v, want an InvalidError", err)
	}
	want := "devices/d1/device.cue:6:26: device.modules.m0.dependsOn.m1: modules wait for each other: m0 → m1 → m2 → m3 → m4 → m5 → m6 → m7 → m8 → m0"
	if err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// bombs are small files that ask for more than any machine has.
var bombs = map[string]struct{ source, want string }{
	"range":       {"import \"list\"\n\n_x: [for i in list.Range(0, 1000000000, 1) {i}]\ndevice: #device & {name: \"d1\", tags: x: len(_x)}\n", "needs more than|takes longer"},
	"disjunction": {"_a: {" + many(24, func(i int) string { return fmt.Sprintf("x%d: 1 | 2 | 3", i) }, ", ") + "}\n_b: " + many(24, func(i int) string { return fmt.Sprintf("({x%d: 1} | {x%d: 2} | {x%d: 3})", i, i, i) }, " & ") + "\ndevice: #device & {name: \"d1\", tags: x: _b.x0}\n", "needs more than|takes longer"},
	"doubling":    {many(40, func(i int) string { return fmt.Sprintf("_s%d: _s%d + _s%d", i+1, i, i) }, "\n") + "\n_s0: \"xxxxxxxxxxxxxxxx\"\ndevice: #device & {name: \"d1\", tags: x: _s40}\n", "needs more than|takes longer"},
	"laughs":      {many(30, func(i int) string { return fmt.Sprintf("_l%d: {a: _l%d, b: _l%d}", i+1, i, i) }, "\n") + "\n_l0: {x: 1}\ndevice: #device & {name: \"d1\", tags: _l30}\n", "needs more than|takes longer|too deep"},
	"recursion":   {"_f: {n: int, out: (_f & {\"n\": n + 1}).out}\ndevice: #device & {name: \"d1\", tags: x: (_f & {n: 0}).out}\n", ""},
	"loop":        {"import \"list\"\n\n_r: list.Range(0, 3000, 1)\n_x: [for a in _r for b in _r for c in _r if a+b+c < 0 {a}]\ndevice: #device & {name: \"d1\", tags: x: len(_x)}\n", "needs more than|takes longer"},
	"nesting":     {"device: #device & {name: \"d1\", tags: x: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "}\n", ""},
	"parentheses": {"device: #device & {name: \"d1\", tags: x: " + strings.Repeat("(", 200000) + "1" + strings.Repeat(")", 200000) + "}\n", ""},
}

func many(n int, f func(int) string, sep string) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = f(i)
	}
	return strings.Join(parts, sep)
}

func TestBombsHarmNobody(t *testing.T) {
	limited := Renderer{Memory: 96 << 20, CPU: time.Second, Wall: time.Minute}
	for name, bomb := range bombs {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := limited.Render(context.Background(), fleet(map[string]string{"d1": bomb.source}), "d1")
			runtime.ReadMemStats(&after)
			var invalid *schema.InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("got %v, want an InvalidError", err)
			}
			if !containsAny(err.Error(), bomb.want) {
				t.Errorf("got %v, want one of %q", err, bomb.want)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 32<<20 {
				t.Errorf("the parent allocated %d bytes", grown)
			}
			t.Log(err)
		})
	}
}

func containsAny(s, alternatives string) bool {
	for a := range strings.SplitSeq(alternatives, "|") {
		if strings.Contains(s, a) {
			return true
		}
	}
	return false
}

// TestOneBombLeavesTheOthers: a fleet with a device whose definition costs too
// much, and one that is wrong, still lists all the others.
func TestOneBombLeavesTheOthers(t *testing.T) {
	plain := func(name string) string {
		return fmt.Sprintf("device: #device & {name: %q, identity: \"U%s\", tags: site: \"x\"}\n", name, strings.Repeat("A", 55))
	}
	tree := fleet(map[string]string{
		"d0": plain("d0"), "d1": bombs["doubling"].source, "d2": plain("d2"), "d3": plain("other"), "d4": bombs["loop"].source, "d5": plain("d5"),
	})
	entries, err := Renderer{Memory: 128 << 20, CPU: time.Second}.Devices(context.Background(), tree)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		state := "ok"
		if e.Err != nil {
			state = "refused"
		} else if e.Identity == "" || e.Tags["site"] != "x" {
			state = "empty"
		}
		got = append(got, e.Name+" "+state)
	}
	if want := "d0 ok, d1 refused, d2 ok, d3 refused, d4 refused, d5 ok"; strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := Renderer{CPU: time.Minute, Wall: time.Minute, Memory: 1 << 30}.Render(ctx, fleet(map[string]string{"d1": bombs["loop"].source}), "d1")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

// TestBadChild: what is not an evaluation's outcome is no InvalidError, so that
// nobody takes it for a fault of the commit.
func TestBadChild(t *testing.T) {
	tree := fleet(map[string]string{"d1": modules(1)})
	for mode, want := range map[string]string{"noise": "hear the child", "flood": "at most", "end": "no reason"} {
		_, err := Renderer{Args: []string{mode}}.Render(context.Background(), tree, "d1")
		var invalid *schema.InvalidError
		if err == nil || errors.As(err, &invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", mode, err, want)
		}
	}
	_, err := Renderer{Exe: "/nonexistent"}.Render(context.Background(), tree, "d1")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestSilentChild: a child that says nothing is ended.
func TestSilentChild(t *testing.T) {
	_, err := Renderer{Args: []string{"silence"}, Wall: time.Millisecond}.Render(context.Background(), fleet(map[string]string{"d1": modules(1)}), "d1")
	if err == nil || !strings.Contains(err.Error(), "takes longer than 1ms") {
		t.Errorf("got %v", err)
	}
}

// BenchmarkProbes is what three probes in each of 500 modules add to it.
func BenchmarkProbes(b *testing.B) {
	for name, health := range map[string]string{
		"none":  "{}",
		"three": `{startup: tcp: port: 80, liveness: http: port: 80, readiness: {exec: command: ["/ready"], interval: "1s"}}`,
	} {
		source := modules(499) + "device: modules: [_]: health: " + health + "\n"
		tree := fleet(map[string]string{"d1": source})
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := schema.Load(context.Background(), tree, "d1"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRender(b *testing.B) {
	for _, n := range []int{1, 100, 500} {
		tree := fleet(map[string]string{"d1": modules(n - 1)})
		b.Run(fmt.Sprintf("sandboxed/modules=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := (Renderer{}).Render(context.Background(), tree, "d1"); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("load/modules=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := schema.Load(context.Background(), tree, "d1"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
