package layout

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentsNameTestsThatExist keeps what is said to prove something from being
// renamed or removed behind its back.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	root := filepath.Join("..", "..")
	declared := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	named := regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`")
	there, said := map[string]bool{}, map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "build" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		test, document := strings.HasSuffix(path, "_test.go"), strings.HasSuffix(path, ".md")
		if !test && !document {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if test {
			for _, m := range declared.FindAllSubmatch(content, -1) {
				there[string(m[1])] = true
			}
			return nil
		}
		for _, m := range named.FindAllSubmatch(content, -1) {
			said[string(m[1])] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(said) == 0 {
		t.Fatal("no document names a test: is the root right?")
	}
	for name, path := range said {
		if !there[name] {
			t.Errorf("%s names %s, and there is no such test", path, name)
		}
	}
}
