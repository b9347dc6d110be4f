package failpoint_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// names are those of all failpoints, by where they are.
func names(t *testing.T) map[string]string {
	found := map[string]string{}
	files := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == "build" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if p, isIdent := ast.Unparen(call.Fun).(*ast.SelectorExpr); !ok || !isIdent || p.Sel.Name != "Reach" {
				return true
			}
			if x, ok := f.X.(*ast.Ident); !ok || x.Name != "failpoint" {
				return true
			}
			at := files.Position(call.Pos()).String()
			literal, ok := call.Args[0].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: a failpoint's name is a literal, or it costs something", at)
				return true
			}
			name, _ := strconv.Unquote(literal.Value)
			if other, twice := found[name]; twice {
				t.Errorf("%s: %s is the name of %s too", at, name, other)
			}
			found[name] = at
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 15 {
		t.Fatalf("found %d failpoints: is the root right?", len(found))
	}
	return found
}

// TestANormalBuildHasNoTrace builds the product as it is released, but for its
// symbols, and one with the tag, in which the same search must find everything.
func TestANormalBuildHasNoTrace(t *testing.T) {
	for _, build := range []struct {
		tags  string
		trace bool
	}{{"", false}, {"failpoint", true}} {
		binary := filepath.Join(t.TempDir(), "tidemark")
		cmd := exec.Command("go", "build", "-p", "2", "-tags", build.tags, "-o", binary, "./cmd/tidemark")
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
		content, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := exec.Command("go", "tool", "nm", binary).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(symbols, []byte("internal/failpoint.")); got != build.trace {
			t.Errorf("tags %q: symbols of the package: %v", build.tags, got)
		}
		if got := bytes.Contains(content, []byte("TIDEMARK_FAILPOINTS")); got != build.trace {
			t.Errorf("tags %q: the variable's name: %v", build.tags, got)
		}
		for name, at := range names(t) {
			if got := bytes.Contains(content, []byte(name)); got != build.trace {
				t.Errorf("tags %q: %s of %s: %v", build.tags, name, at, got)
			}
		}
	}
}
