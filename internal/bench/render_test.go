//go:build bench

package bench

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/schema/sandbox"
)

// measureRender takes the time from a commit's tree to what the device shall
// run, in the bounded child process, as the agent does it.
func measureRender(t *testing.T, f *table) {
	for _, n := range []int{1, 100, 500} {
		tree := fleetOf(t, n)
		renderer := sandbox.Renderer{Exe: tidemark()}
		var all []float64
		for range 20 {
			began := time.Now()
			desired, err := renderer.Render(context.Background(), tree, deviceName)
			if err != nil || len(desired.Modules) != n {
				t.Fatalf("%d modules, %v", len(desired.Modules), err)
			}
			all = append(all, ms(time.Since(began)))
		}
		f.add(fmt.Sprintf("render_%d_ms", n), percentile(all, 50), "ms", "%d modules, in the child process, its start included, median of 20", n)
	}
}

// fleetOf is a fleet repository whose device has n modules.
func fleetOf(t *testing.T, n int) fstest.MapFS {
	files, err := schema.Scaffold{Site: "lab", Device: deviceName}.Files()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "package fleet\n\ndevice: #device & {\n\tname: %q\n", deviceName)
	for i := range n {
		fmt.Fprintf(&b, "\tmodules: m%03d: {image: \"registry.example.com/app/m%03d@sha256:%064d\", env: {A: \"1\", B: \"2\"}, limits: memory: \"64Mi\"}\n", i, i, i)
	}
	b.WriteString("}\n")
	tree := fstest.MapFS{}
	for path, content := range files {
		tree[path] = &fstest.MapFile{Data: content}
	}
	tree["sites/lab/"+deviceName+"/device.cue"] = &fstest.MapFile{Data: []byte(b.String())}
	return tree
}
