package schema

import (
	"bytes"
	"path"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/build"
	"cuelang.org/go/cue/token"
)

// provenDevice reports whether the sources show that `device` is unified with
// this binary's own #Device: the definitions that the package imports are ours,
// byte for byte, and `device` is a conjunction with #Device in it, directly or
// through definitions of the package. Then checking once more would only cost
// time. It looks for the usual ways to write it; false is no objection.
func (t Tree) provenDevice(inst *build.Instance) bool {
	if !t.importsOurs(inst) {
		return false
	}
	s := conjuncts{files: inst.Files, seen: map[string]bool{}}
	return s.field("device")
}

// importsOurs reports whether inst imports the definitions as this binary
// embeds them.
func (t Tree) importsOurs(inst *build.Instance) bool {
	ours := Definitions()
	for _, imp := range inst.Imports {
		if imp.ImportPath != DefinitionsPath && !strings.HasPrefix(imp.ImportPath, DefinitionsPath+"@") && !strings.HasPrefix(imp.ImportPath, DefinitionsPath+":") {
			continue
		}
		if len(imp.BuildFiles) != len(ours) {
			return false
		}
		for _, f := range imp.BuildFiles {
			name := strings.TrimPrefix(f.Filename, treeRoot+"/")
			if own, ok := ours[path.Base(name)]; !ok || !bytes.Equal(own, t[name]) {
				return false
			}
		}
		return true
	}
	return false
}

// conjuncts follows the conjunctions of a package's top-level fields.
type conjuncts struct {
	files []*ast.File
	seen  map[string]bool
}

// field reports whether some declaration of the field has #Device in it; they
// all unify.
func (s conjuncts) field(name string) bool {
	if s.seen[name] {
		return false
	}
	s.seen[name] = true
	for _, f := range s.files {
		if shadows(f, name) {
			return false
		}
		for _, decl := range f.Decls {
			field, ok := decl.(*ast.Field)
			if !ok || field.Constraint != token.ILLEGAL {
				continue
			}
			label, _, err := ast.LabelName(field.Label)
			if err == nil && label == name && s.expr(field.Value) {
				return true
			}
		}
	}
	return false
}

func (s conjuncts) expr(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.ParenExpr:
		return s.expr(x.X)
	case *ast.BinaryExpr:
		return x.Op == token.AND && (s.expr(x.X) || s.expr(x.Y))
	case *ast.Ident:
		return strings.HasPrefix(x.Name, "#") && s.field(x.Name)
	case *ast.SelectorExpr:
		pkg, ok := x.X.(*ast.Ident)
		if !ok {
			return false
		}
		spec, ok := pkg.Node.(*ast.ImportSpec)
		if !ok || unquoted(spec.Path.Value) != DefinitionsPath {
			return false
		}
		name, _, err := ast.LabelName(x.Sel)
		return err == nil && name == "#Device"
	}
	return false
}

// shadows reports whether a file gives name another meaning.
func shadows(f *ast.File, name string) bool {
	for _, decl := range f.Decls {
		switch decl := decl.(type) {
		case *ast.LetClause:
			if decl.Ident.Name == name {
				return true
			}
		case *ast.Field:
			if a, ok := decl.Label.(*ast.Alias); ok && a.Ident.Name == name {
				return true
			}
			if a := decl.Alias; a != nil && (a.Field.Name == name || a.Label != nil && a.Label.Name == name) {
				return true
			}
			if a, ok := decl.Value.(*ast.Alias); ok && a.Ident.Name == name {
				return true
			}
		}
	}
	return false
}
