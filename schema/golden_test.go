package schema_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// A golden case is a txtar archive: comment lines "device: NAME", optionally
// "dir: DIR" and "beyond cue: WHY" for what stock CUE cannot refuse (or, "not
// cue: WHY", would not), then the repository's files, then "want": the Desired
// as JSON, or the errors. The definitions are vendored unless the archive has
// its own.
type goldenCase struct {
	name, path        string
	device, dir       string
	beyondCUE, notCUE bool
	archive           *txtar.Archive
	tree              fstest.MapFS
	want              string
}

// vendored is where a repository keeps the definitions.
const vendored = "cue.mod/pkg/" + schema.DefinitionsPath

const goldenModule = "module: \"example.com/fleet@v0\"\nlanguage: version: \"v0.17.0\"\n"

func goldenCases(t testing.TB) []goldenCase {
	t.Helper()
	paths, err := filepath.Glob("testdata/load/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden cases: %v", err)
	}
	var cases []goldenCase
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		c := goldenCase{name: strings.TrimSuffix(filepath.Base(path), ".txtar"), path: path, archive: archive, tree: fstest.MapFS{}}
		for line := range strings.Lines(string(archive.Comment)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch key {
			case "device":
				c.device = value
			case "dir":
				c.dir = value
			case "beyond cue":
				c.beyondCUE = true
			case "not cue":
				c.notCUE = true
			}
		}
		c.tree["cue.mod/module.cue"] = &fstest.MapFile{Data: []byte(goldenModule)}
		vendor := true
		for _, f := range archive.Files {
			if f.Name == "want" {
				c.want = string(f.Data)
				continue
			}
			vendor = vendor && !strings.HasPrefix(f.Name, vendored)
			c.tree[f.Name] = &fstest.MapFile{Data: f.Data}
		}
		if vendor {
			for name, source := range schema.Definitions() {
				c.tree[vendored+"/"+name] = &fstest.MapFile{Data: source}
			}
		}
		cases = append(cases, c)
	}
	return cases
}

func TestGolden(t *testing.T) {
	for _, c := range goldenCases(t) {
		t.Run(c.name, func(t *testing.T) {
			desired, err := schema.LoadAt(context.Background(), c.tree, c.device, c.dir)
			got := rendered(t, desired, err)
			if *update {
				c.archive.Files = slices.DeleteFunc(c.archive.Files, func(f txtar.File) bool { return f.Name == "want" })
				c.archive.Files = append(c.archive.Files, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(c.path, txtar.Format(c.archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

// rendered is what a golden file holds. Every refusal must be an InvalidError.
func rendered(t *testing.T, desired schema.Desired, err error) string {
	t.Helper()
	if err != nil {
		var invalid *schema.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%v is no InvalidError", err)
		}
		return err.Error() + "\n"
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(desired); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestAgreesWithStockCUE: what `cue vet -c` refuses the agent refuses, and what
// it accepts the agent accepts, but for what each case documents.
func TestAgreesWithStockCUE(t *testing.T) {
	tool := harness.Tool(t, "cue")
	for _, c := range goldenCases(t) {
		t.Run(c.name, func(t *testing.T) {
			_, err := schema.LoadAt(context.Background(), c.tree, c.device, c.dir)
			dir := t.TempDir()
			if err := os.CopyFS(dir, c.tree); err != nil {
				t.Fatal(err)
			}
			out, cueErr := vet(tool, dir)
			switch {
			case c.notCUE || c.beyondCUE:
				if err == nil || cueErr != nil {
					t.Errorf("documented as refused here only; here: %v; cue: %v\n%s", err, cueErr, out)
				}
			case (err == nil) != (cueErr == nil):
				t.Errorf("here: %v\ncue: %v\n%s", err, cueErr, out)
			}
		})
	}
}

// vet runs the command that README of a fleet repository names.
func vet(tool, dir string) (string, error) {
	cmd := exec.Command(tool, "vet", "-c", "./...")
	cmd.Dir = dir
	cmd.Env = []string{"CUE_REGISTRY=none", "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	return string(out), err
}
