// Package layout holds the architecture as a test: which package may import
// which. ARCHITECTURE.md has the same table for people.
package layout

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tidemark-edge/tidemark/"

// rooms lists every package folder with the packages of ours that it may
// import. What is not listed may not exist; a folder ending in /… stands for
// all below it.
var rooms = map[string][]string{
	"schema":               {"internal/durable", "schema/condition"},
	"schema/…":             {"schema"},
	"signing":              {"internal/durable", "schema", "signing/…"},
	"signing/…":            {"internal/durable", "schema", "signing", "signing/…"},
	"twin":                 {},
	"twin/leaf":            {"internal/durable", "internal/failpoint", "schema", "twin", "twin/leaf/…"},
	"twin/leaf/admission":  {"internal/challenge", "schema", "twin"},
	"twin/leaf/door":       {"internal/netns"},
	"twin/leaf/identity":   {"internal/durable", "schema"},
	"twin/leaf/ledger":     {"internal/boot", "internal/durable", "internal/failpoint", "schema", "twin"},
	"twin/outbox":          {"internal/boot", "internal/durable", "internal/failpoint", "schema", "schema/condition", "twin", "twin/outbox/queue", "twin/outbox/uplink"},
	"twin/outbox/queue":    {"internal/boot", "internal/failpoint", "schema", "twin"},
	"twin/outbox/…":        {"internal/durable", "internal/failpoint", "schema", "twin", "twin/outbox/queue"},
	"containerd":           {"containerd/…", "internal/boot", "internal/failpoint", "internal/netns", "schema", "signing"},
	"containerd/store":     {"containerd/…", "internal/boot", "internal/durable", "internal/failpoint", "schema", "signing"},
	"containerd/…":         {"containerd/account", "containerd/database", "internal/boot", "internal/durable", "schema"},
	"reconciler":           {"internal/durable", "internal/failpoint", "reconciler/history", "schema", "signing", "twin"},
	"reconciler/gitsource": {"internal/durable", "schema", "signing"},
	"reconciler/history":   {"internal/durable", "schema"},
	"reconciler/…":         {"schema", "signing", "reconciler", "reconciler/…"},
	"hub":                  {"internal/challenge", "internal/durable", "internal/failpoint", "schema", "signing", "twin", "reconciler/gitsource"},
	"cmd/tidemark":         {"internal/boot", "schema", "schema/…", "signing", "twin", "twin/leaf", "twin/outbox", "containerd", "containerd/output", "containerd/store", "reconciler", "reconciler/gitsource", "hub"},
	"examples/…":           {"twin"},
	"internal/boot":        {},
	"internal/challenge":   {},
	"internal/durable":     {"internal/failpoint"},
	"internal/failpoint":   {},
	"internal/fault":       {"…"},
	"internal/fault/…":     {"twin"},
	"internal/harness":     {"internal/netns", "schema"},
	"internal/harness/…":   {"internal/harness", "internal/harness/…"},
	"internal/layout":      {},
	"internal/netns":       {},
	"internal/bench":       {"…"},
	"internal/bench/…":     {},
}

// heavy names, for each large dependency, the only rooms that may import it.
var heavy = map[string][]string{
	"cuelang.org/go":                         {"schema"},
	"cel.dev/":                               {"schema/condition"},
	"github.com/sigstore/":                   {"signing", "signing/…", "examples/…"},
	"github.com/google/go-containerregistry": {"signing", "signing/…", "examples/…", "internal/harness", "internal/fault"},
	"github.com/nats-io/nats-server":         {"twin/leaf", "twin/leaf/admission", "hub"},
	"github.com/nats-io/nats.go":             {"twin", "twin/leaf", "twin/outbox", "twin/outbox/…", "hub", "cmd/tidemark", "examples/…", "internal/bench", "internal/fault"},
	"github.com/containerd/":                 {"containerd", "containerd/salvage", "containerd/specification", "containerd/store", "internal/fault"},
	"github.com/opencontainers/":             {"containerd", "containerd/specification", "containerd/store"},
	"github.com/vishvananda/netlink":         {"containerd"},
	"github.com/go-git/":                     {"reconciler/gitsource"},
	"github.com/spf13/":                      {"cmd/tidemark"},
}

// TestImportDirection parses every source file that is not a test.
func TestImportDirection(t *testing.T) {
	root := filepath.Join("..", "..")
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n == ".git" || n == "build" || n == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		checkFile(t, filepath.ToSlash(filepath.Dir(rel)), path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Fatalf("saw %d source files: is the root right?", files)
	}
}

// checkFile reports each import of the file at path that its room may not have.
func checkFile(t *testing.T, room, path string) {
	t.Helper()
	allowed, ok := lookUp(room)
	if !ok {
		t.Errorf("%s: there is no room %q in the plan: put the file where it belongs, or redraw the plan", path, room)
		return
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		if ours, ok := strings.CutPrefix(imported, module); ok && !matches(allowed, ours) {
			t.Errorf("%s: %s may not import %s", path, room, ours)
		}
		for prefix, only := range heavy {
			if strings.HasPrefix(imported, prefix) && !matches(only, room) {
				t.Errorf("%s: %s is for %s only", path, imported, strings.Join(only, ", "))
			}
		}
	}
}

// lookUp finds what room may import: its own line, or that of the nearest /….
func lookUp(room string) ([]string, bool) {
	if allowed, ok := rooms[room]; ok {
		return allowed, true
	}
	for up := room; strings.Contains(up, "/"); {
		up = up[:strings.LastIndex(up, "/")]
		if allowed, ok := rooms[up+"/…"]; ok {
			return allowed, true
		}
	}
	return nil, false
}

// matches reports whether the list names the package, by itself or by a /….
func matches(list []string, pkg string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		prefix, below := strings.CutSuffix(entry, "…")
		return entry == pkg || below && strings.HasPrefix(pkg, prefix)
	})
}

// TestNoGoFilesInTheRoot keeps the first page of the repository for people.
func TestNoGoFilesInTheRoot(t *testing.T) {
	found, err := filepath.Glob(filepath.Join("..", "..", "*.go"))
	if err != nil || len(found) > 0 {
		t.Fatalf("%v %v", found, err)
	}
}

// TestEveryDependencyIsJustified holds go.mod and the table in CONTRIBUTING.md
// together.
func TestEveryDependencyIsJustified(t *testing.T) {
	file, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile(filepath.Join("..", "..", "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	direct := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllSubmatch(file, -1)
	if len(direct) < 10 {
		t.Fatalf("found %d direct requirements: is the pattern right?", len(direct))
	}
	for _, m := range direct {
		if !bytes.Contains(table, []byte("`"+string(m[1])+"`")) {
			t.Errorf("CONTRIBUTING.md does not say why there is %s", m[1])
		}
	}
}
