package schema_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

func TestScaffoldRefusesNames(t *testing.T) {
	for _, s := range []schema.Scaffold{
		{Device: ""}, {Device: "Hannover"}, {Device: "a", Site: "../b"}, {Device: "a", Module: "no spaces"}, {Device: "a", Module: "x\"\ny"},
	} {
		if files, err := s.Files(); err == nil {
			t.Errorf("%+v: got %d files, want an error", s, len(files))
		}
	}
}
