package schema

import (
	"bytes"
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/format"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"
)

// Place is where a repository writes a field.
type Place struct {
	File    string   // slash-separated path in the repository
	Line    int      // from 1
	Column  int      // from 1
	Labels  []string // of the field and what it is in, from the top of the file on
	Literal bool     // the value is written out there

	value, field span // bytes of the file
}

type span struct{ from, to int }

// String is file:line:col.
func (p Place) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Places are those where a field is written whose labels end with these: what CUE
// makes of them is for evaluation to say. Those in the deepest directories, which
// are nearest to a device, come first. Files that do not parse, and those of other
// modules, have none.
func (t Tree) Places(labels []string) []Place {
	var all []Place
	for file, source := range t {
		if strings.HasPrefix(file, "cue.mod/") {
			continue
		}
		parsed, err := parser.ParseFile(file, source)
		if err != nil {
			continue
		}
		s := seeker{file: file, labels: labels}
		s.decls(parsed.Decls, nil)
		all = append(all, s.found...)
	}
	slices.SortFunc(all, func(a, b Place) int {
		return cmp.Or(cmp.Compare(strings.Count(b.File, "/"), strings.Count(a.File, "/")),
			strings.Compare(a.File, b.File), cmp.Compare(a.field.from, b.field.from))
	})
	return all
}

// seeker walks through a file.
type seeker struct {
	file   string
	labels []string
	found  []Place
}

func (s *seeker) decls(decls []ast.Decl, within []string) {
	for _, decl := range decls {
		switch decl := decl.(type) {
		case *ast.Field:
			name, _, err := ast.LabelName(decl.Label)
			if err != nil {
				continue
			}
			labels := append(slices.Clone(within), name)
			if n := len(labels) - len(s.labels); n >= 0 && slices.Equal(labels[n:], s.labels) && decl.Constraint == token.ILLEGAL {
				s.found = append(s.found, s.place(decl, labels))
			}
			s.expr(decl.Value, labels)
		case *ast.EmbedDecl:
			s.expr(decl.Expr, within)
		}
	}
}

func (s *seeker) expr(x ast.Expr, within []string) {
	switch x := x.(type) {
	case *ast.StructLit:
		s.decls(x.Elts, within)
	case *ast.ParenExpr:
		s.expr(x.X, within)
	case *ast.BinaryExpr:
		s.expr(x.X, within)
		s.expr(x.Y, within)
	}
}

func (s *seeker) place(f *ast.Field, labels []string) Place {
	at := f.Pos()
	return Place{
		File: s.file, Line: at.Line(), Column: at.Column(), Labels: labels, Literal: isLiteral(f.Value),
		value: span{f.Value.Pos().Offset(), f.Value.End().Offset()}, field: span{at.Offset(), f.End().Offset()},
	}
}

// isLiteral reports whether a value is written out.
func isLiteral(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.BasicLit, *ast.StructLit, *ast.ListLit:
		return true
	case *ast.UnaryExpr:
		_, ok := x.X.(*ast.BasicLit)
		return ok && (x.Op == token.SUB || x.Op == token.ADD)
	}
	return false
}

// Write returns the tree with another value, in JSON, in a place of it; nil takes
// the field away. The tree stays as it is.
func (t Tree) Write(p Place, value []byte) (Tree, error) {
	source, cut := t[p.File], p.value
	if value == nil {
		cut = p.field
	}
	if cut.from < 0 || cut.to > len(source) || cut.from > cut.to {
		return nil, fmt.Errorf("write %s: it is not in the file", p)
	}
	if rest := bytes.TrimLeft(source[cut.to:], " \t"); value == nil && bytes.HasPrefix(rest, []byte(",")) {
		cut.to = len(source) - len(rest) + 1
	}
	return t.with(p.File, slices.Concat(source[:cut.from], value, source[cut.to:]))
}

// Append returns the tree with declarations at the end of a file, which is made
// where it is not there, for the package that the other files of its directory
// are of. The tree stays as it is.
func (t Tree) Append(file, declarations string) (Tree, error) {
	source, there := t[file]
	if !there {
		name, err := t.packageOf(path.Dir(file))
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", file, err)
		}
		source = []byte("package " + name + "\n")
	}
	return t.with(file, slices.Concat(source, []byte("\n"+declarations)))
}

// with returns the tree with a file that says source, formatted.
func (t Tree) with(file string, source []byte) (Tree, error) {
	formatted, err := format.Source(source)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", file, err)
	}
	out := make(Tree, len(t)+1)
	for name, s := range t {
		out[name] = s
	}
	out[file] = formatted
	return out, nil
}

// packageOf is the package of the files in a directory.
func (t Tree) packageOf(dir string) (string, error) {
	for file, source := range t {
		if path.Dir(file) != dir {
			continue
		}
		f, err := parser.ParseFile(file, source, parser.PackageClauseOnly)
		if err == nil && f.PackageName() != "" {
			return f.PackageName(), nil
		}
	}
	return "", fmt.Errorf("no file in %s names its package", dir)
}
