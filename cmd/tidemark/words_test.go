package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// TestEveryWordOfAReportIsExplainedToWhoReadsIt: a phase, a module's status, an
// event or a method that no help text names is a word that a person has to guess.
func TestEveryWordOfAReportIsExplainedToWhoReadsIt(t *testing.T) {
	for _, c := range []struct {
		file, prefix string // of constants
		words        []word
		help         string
	}{
		{"../../schema/report.go", "Phase", phases, newStatus().Long},
		{"../../schema/report.go", "Runtime", runtimeStates, newStatus().Long},
		{"../../schema/history.go", "Event", events, newHistory().Long},
		{"methods.go", "method", deviceMethods, newCall().Long},
	} {
		said := constants(t, c.file, c.prefix)
		if len(said) == 0 || len(said) != len(c.words) {
			t.Errorf("%s…: %d words, %d explained", c.prefix, len(said), len(c.words))
		}
		for _, word := range said {
			if !strings.Contains(c.help, "\n  "+word+" ") {
				t.Errorf("%s… %q is not explained", c.prefix, word)
			}
		}
		for line := range strings.Lines(c.help) {
			if len(line) > 90 {
				t.Errorf("too long for a terminal: %s", line)
			}
		}
	}
}

// constants are the values of the string constants of a file whose names begin
// with prefix.
func constants(t *testing.T, file, prefix string) (values []string) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) != 1 {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, value)
		}
		return true
	})
	return values
}
