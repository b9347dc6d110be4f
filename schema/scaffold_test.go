package schema_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// TestScaffoldIsAccepted: what init writes loads, and stock CUE vets it offline.
func TestScaffoldIsAccepted(t *testing.T) {
	files, err := schema.Scaffold{Module: "fleet.example.org/all", Site: "hannover", Device: "hannover01"}.Files()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	desired, err := schema.Load(context.Background(), os.DirFS(dir), "hannover01")
	if err != nil {
		t.Fatal(err)
	}
	if desired.Tags["site"] != "hannover" || len(desired.Modules) != 0 {
		t.Errorf("got %+v", desired)
	}
	if out, err := vet(harness.Tool(t, "cue"), dir); err != nil {
		t.Errorf("cue vet: %v\n%s", err, out)
	}
	entries, err := schema.LoadAll(context.Background(), os.DirFS(dir))
	if err != nil || len(entries) != 1 || entries[0].Err != nil || entries[0].Dir != "sites/hannover/hannover01" {
		t.Errorf("got %+v, %v", entries, err)
	}
	for name, content := range files {
		if strings.Contains(string(content), "SITE") || strings.Contains(string(content), "MODULE") {
			t.Errorf("%s has a placeholder left", name)
		}
	}
}

// What the scaffold shows in comments is accepted once somebody removes the //.
func TestScaffoldExamplesAreAccepted(t *testing.T) {
	files, err := schema.Scaffold{Site: "hannover", Device: "hannover01"}.Files()
	if err != nil {
		t.Fatal(err)
	}
	tree := fstest.MapFS{}
	for name, content := range files {
		lines := strings.Split(string(content), "\n")
		within := false
		for i, line := range lines {
			code, comment := strings.CutPrefix(line, "\t// ")
			within = comment && (within || strings.HasPrefix(code, "modules:"))
			if within {
				lines[i] = code
			}
		}
		source := strings.ReplaceAll(strings.Join(lines, "\n"), "sha256:…", "sha256:"+strings.Repeat("1", 64))
		tree[name] = &fstest.MapFile{Data: []byte(source)}
	}
	desired, err := schema.Load(context.Background(), tree, "hannover01")
	if err != nil {
		t.Fatal(err)
	}
	hello, ok := desired.Module("hello")
	if !ok || hello.Health.Liveness == nil || hello.Restart.Max != schema.Duration(time.Minute) {
		t.Errorf("the examples were not all taken: %+v", desired)
	}
}

func TestScaffoldRefusesNames(t *testing.T) {
	for _, s := range []schema.Scaffold{
		{Device: ""}, {Device: "Hannover"}, {Device: "a", Site: "../b"}, {Device: "a", Module: "no spaces"}, {Device: "a", Module: "x\"\ny"},
	} {
		if files, err := s.Files(); err == nil {
			t.Errorf("%+v: got %d files, want an error", s, len(files))
		}
	}
}
