package schema

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/token"
)

// Bounds on a schema that is evaluated within the agent at every report.
const (
	maxSchemaCost   = 2000 // steps, with every reference followed
	maxAlternatives = 64   // of one value, multiplied out
	maxExponent     = 400  // of a number
)

// cheapCalls are the functions that only look at a value, in time linear to its
// size.
var cheapCalls = map[string][]string{
	"":        {"close", "error", "matchN", "or", "and"},
	"list":    {"MinItems", "MaxItems"},
	"math":    {"MultipleOf"},
	"net":     {"IP", "IPv4", "IPv6", "IPCIDR", "FQDN", "URL", "AbsURL"},
	"strings": {"MinRunes", "MaxRunes"},
	"struct":  {"MinFields", "MaxFields"},
	"time":    {"Time", "Duration", "Format"},
}

var basicTypes = []string{
	"_", "bool", "bytes", "float", "float32", "float64", "int", "int8", "int16", "int32", "int64", "int128",
	"null", "number", "rune", "string", "uint", "uint8", "uint16", "uint32", "uint64", "uint128",
}

// checkCheap refuses schemas whose check could take long, and returns how many
// steps one value takes at most. CUE can neither be stopped nor bounded, and the
// documents are the modules' own. So there are no loops, no arithmetic, no
// references in a circle; what is left is counted with every reference followed
// and every combination of alternatives taken.
func checkCheap(f *ast.File) (int, error) {
	w := weigher{open: map[ast.Node]bool{}, known: map[ast.Node]weight{}}
	total := w.decls(f.Decls)
	if w.err != nil {
		return 0, w.err
	}
	if err := w.limit(total); err != nil {
		return 0, err
	}
	return total.cost, nil
}

// weight is what one expression costs.
type weight struct {
	cost         int // steps
	alternatives int // of a disjunction, multiplied out
}

// weigher adds up weights; the first objection stays in err.
type weigher struct {
	open  map[ast.Node]bool // references being followed
	known map[ast.Node]weight
	err   error
}

func (w *weigher) refuse(n ast.Node, format string, args ...any) weight {
	if w.err == nil {
		w.err = invalid("schema of reported: "+format, args...)
	}
	return weight{1, 1}
}

func (w *weigher) limit(x weight) error {
	if x.cost > maxSchemaCost {
		return invalid("schema of reported: too large: %d steps with references followed, at most %d", x.cost, maxSchemaCost)
	}
	if x.alternatives > maxAlternatives {
		return invalid("schema of reported: %d combinations of alternatives, at most %d", x.alternatives, maxAlternatives)
	}
	return nil
}

// both is the weight of a conjunction, in which every alternative of one side
// meets every one of the other.
func (w *weigher) both(a, b weight) weight {
	x := weight{a.cost*b.alternatives + b.cost*a.alternatives, a.alternatives * b.alternatives}
	if err := w.limit(x); err != nil && w.err == nil {
		w.err = err
	}
	if w.err != nil {
		return weight{1, 1} // it is refused; keep the numbers small
	}
	return x
}

// decls is the weight of a struct: all its fields and embeddings at once.
// Alternatives of a field stay with the field.
func (w *weigher) decls(decls []ast.Decl) weight {
	total := weight{1, 1}
	fields := map[string]weight{}
	for _, decl := range decls {
		if w.err != nil {
			return weight{1, 1}
		}
		switch d := decl.(type) {
		case *ast.Field:
			label := w.label(d)
			x := w.expr(d.Value)
			if before, twice := fields[label]; twice {
				x = w.both(before, x)
			}
			fields[label] = x
			total.cost += x.cost
		case *ast.EmbedDecl:
			total = w.both(total, w.expr(d.Expr))
		case *ast.LetClause:
			total.cost += w.expr(d.Expr).cost
		case *ast.Ellipsis:
			if d.Type != nil {
				total.cost += w.expr(d.Type).cost
			}
		case *ast.ImportDecl:
			w.imports(d)
		case *ast.CommentGroup, *ast.Attribute:
		default:
			return w.refuse(decl, "%s cannot be in it: it is checked at every report, and must stay cheap", describe(decl))
		}
	}
	return total
}

func (w *weigher) imports(d *ast.ImportDecl) {
	for _, spec := range d.Specs {
		if name := unquoted(spec.Path.Value); cheapCalls[name] == nil || spec.Name != nil && spec.Name.Name != name {
			w.refuse(d, "package %q cannot be in it: it is checked at every report, and must stay cheap", name)
		}
	}
}

// label weighs a pattern, and names the field.
func (w *weigher) label(d *ast.Field) string {
	if list, ok := d.Label.(*ast.ListLit); ok && len(list.Elts) == 1 {
		w.expr(list.Elts[0])
		return fmt.Sprintf("[%p]", list)
	}
	name, _, err := ast.LabelName(d.Label)
	if err != nil || d.Alias != nil {
		w.refuse(d, "a computed or aliased field cannot be in it")
	}
	return name
}

func (w *weigher) expr(x ast.Expr) weight {
	if w.err != nil {
		return weight{1, 1}
	}
	switch x := x.(type) {
	case *ast.StructLit:
		return w.decls(x.Elts)
	case *ast.ParenExpr:
		return w.expr(x.X)
	case *ast.ListLit:
		return w.list(x)
	case *ast.BasicLit:
		return w.literal(x)
	case *ast.UnaryExpr:
		return w.expr(x.X)
	case *ast.Ellipsis:
		if x.Type == nil {
			return weight{1, 1}
		}
		return w.expr(x.Type)
	case *ast.BinaryExpr:
		a, b := w.expr(x.X), w.expr(x.Y)
		switch x.Op {
		case token.AND:
			return w.both(a, b)
		case token.OR:
			return weight{a.cost + b.cost, a.alternatives + b.alternatives}
		}
		return w.refuse(x, "the operator %v cannot be in it: it is checked at every report, and must stay cheap", x.Op)
	case *ast.Ident:
		return w.reference(x)
	case *ast.SelectorExpr:
		return w.expr(x.X)
	case *ast.IndexExpr:
		w.expr(x.Index)
		return w.expr(x.X)
	case *ast.CallExpr:
		return w.call(x)
	}
	return w.refuse(x, "%s cannot be in it: it is checked at every report, and must stay cheap", describe(x))
}

func (w *weigher) list(x *ast.ListLit) weight {
	total := weight{1, 1}
	for _, e := range x.Elts {
		total.cost += w.expr(e).cost
	}
	return total
}

var exponentRE = regexp.MustCompile(`^[0-9_.]+[eE][+-]?([0-9]+)$`)

func (w *weigher) literal(x *ast.BasicLit) weight {
	if m := exponentRE.FindStringSubmatch(x.Value); m != nil {
		if n, err := strconv.Atoi(m[1]); err != nil || n > maxExponent {
			return w.refuse(x, "%.40s is beyond what JSON's readers hold", x.Value)
		}
	}
	if (x.Kind == token.INT || x.Kind == token.FLOAT) && len(x.Value) > maxExponent {
		return w.refuse(x, "%.40s… is beyond what JSON's readers hold", x.Value)
	}
	return weight{1, 1}
}

func (w *weigher) call(x *ast.CallExpr) weight {
	pkg, name := "", ""
	switch fun := x.Fun.(type) {
	case *ast.Ident:
		name = fun.Name
	case *ast.SelectorExpr:
		if id, ok := fun.X.(*ast.Ident); ok {
			pkg = id.Name
		}
		name, _, _ = ast.LabelName(fun.Sel)
	}
	if !slices.Contains(cheapCalls[pkg], name) {
		return w.refuse(x, "%s cannot be in it: it is checked at every report, and must stay cheap", strings.TrimPrefix(pkg+"."+name, "."))
	}
	total := weight{1, 1}
	for _, arg := range x.Args {
		a := w.expr(arg)
		total.cost += a.cost
		if list, ok := arg.(*ast.ListLit); ok && name == "or" {
			total.alternatives = max(1, len(list.Elts))
		}
	}
	return total
}

// reference weighs what an identifier stands for.
func (w *weigher) reference(x *ast.Ident) weight {
	n := x.Node
	if n == nil {
		if slices.Contains(basicTypes, x.Name) {
			return weight{1, 1}
		}
		return w.refuse(x, "%s is not defined in it", x.Name)
	}
	if _, ok := n.(*ast.ImportSpec); ok {
		return weight{1, 1}
	}
	if known, ok := w.known[n]; ok {
		return known
	}
	if w.open[n] {
		return w.refuse(x, "%s refers to itself: it is checked at every report, and must stay cheap", x.Name)
	}
	w.open[n] = true
	var total weight
	switch n := n.(type) {
	case *ast.Field:
		total = w.expr(n.Value)
	case *ast.LetClause:
		total = w.expr(n.Expr)
	case *ast.Alias:
		total = w.expr(n.Expr)
	case ast.Expr:
		total = w.expr(n)
	default:
		total = w.refuse(x, "%s cannot be in it", x.Name)
	}
	delete(w.open, n)
	w.known[n] = total
	return total
}

// describe names a construct for people.
func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.Comprehension, *ast.ForClause, *ast.IfClause:
		return "a comprehension (for, if)"
	case *ast.Interpolation:
		return "an interpolated string"
	case *ast.SliceExpr:
		return "a slice"
	case *ast.Package:
		return "a package clause"
	case *ast.BadExpr, *ast.BadDecl:
		return "what does not parse"
	}
	return "this"
}
