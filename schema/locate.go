package schema

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/token"
)

// locator finds where in the sources the value at a path is written, for
// errors that CUE cannot place: something missing, or something only we check.
type locator struct{ files []*ast.File }

// newLocator looks into the deepest files first: they are nearest to the
// device.
func newLocator(files []*ast.File) *locator {
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b *ast.File) int {
		return cmp.Or(cmp.Compare(strings.Count(b.Filename, "/"), strings.Count(a.Filename, "/")),
			cmp.Compare(a.Filename, b.Filename))
	})
	return &locator{files}
}

// find returns the place of the longest part of path that is written out. What
// a device has is also written in the definition #device of its layers.
func (l *locator) find(path []string) token.Pos {
	best, depth := token.NoPos, 0
	try := func(path []string) {
		for _, f := range l.files {
			if pos, d := deepest(f.Decls, path); d > depth {
				best, depth = pos, d
			}
		}
	}
	try(path)
	if len(path) > 0 && path[0] == "device" {
		try(append([]string{"#device"}, path[1:]...))
	}
	return best
}

// isHead reports whether pos is where the value of a top-level `device` or
// `#device` begins: CUE names the definition there in each error below.
func (l *locator) isHead(pos token.Pos) bool {
	for _, f := range l.files {
		for _, decl := range f.Decls {
			field, ok := decl.(*ast.Field)
			if !ok {
				continue
			}
			if name, _, err := ast.LabelName(field.Label); err != nil || name != "device" && name != "#device" {
				continue
			}
			if field.Value.Pos() == pos {
				return true
			}
		}
	}
	return false
}

// deepest follows path through declarations: its first element here, the rest
// within the fields of that name.
func deepest(decls []ast.Decl, path []string) (best token.Pos, depth int) {
	if len(path) == 0 {
		return token.NoPos, 0
	}
	for _, decl := range decls {
		pos, d := token.NoPos, 0
		switch decl := decl.(type) {
		case *ast.Field:
			name, _, err := ast.LabelName(decl.Label)
			if err != nil || name != unquoted(path[0]) {
				continue
			}
			pos, d = decl.Pos(), 1
			if p, n := deepestIn(decl.Value, path[1:]); n > 0 {
				pos, d = p, n+1
			}
		case *ast.EmbedDecl:
			pos, d = deepestIn(decl.Expr, path)
		}
		if d > depth {
			best, depth = pos, d
		}
	}
	return best, depth
}

func deepestIn(x ast.Expr, path []string) (token.Pos, int) {
	switch x := x.(type) {
	case *ast.StructLit:
		return deepest(x.Elts, path)
	case *ast.ParenExpr:
		return deepestIn(x.X, path)
	case *ast.BinaryExpr:
		pos, n := deepestIn(x.X, path)
		if p, m := deepestIn(x.Y, path); m > n {
			return p, m
		}
		return pos, n
	case *ast.ListLit:
		if len(path) == 0 {
			return token.NoPos, 0
		}
		i, err := strconv.Atoi(path[0])
		if err != nil || i < 0 || i >= len(x.Elts) {
			return token.NoPos, 0
		}
		if pos, n := deepestIn(x.Elts[i], path[1:]); n > 0 {
			return pos, n + 1
		}
		return x.Elts[i].Pos(), 1
	}
	return token.NoPos, 0
}

func unquoted(s string) string {
	if u, err := strconv.Unquote(s); err == nil {
		return u
	}
	return s
}
