package schema

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/parser"
	cuejson "cuelang.org/go/encoding/json"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// MaxConfigBytes bounds a configuration file.
const MaxConfigBytes = 256 << 10

// LoadAgentConfig reads the configuration of an agent: one CUE file, checked
// against #Agent, defaults filled in, file names made absolute. overrides
// (environment, flags) replace what the file says, by the path of the value:
// "hub.url", `registries."ghcr.io".caFile`; a value that is not a string is
// written as CUE. What is wrong is an *InvalidError with file:line:col.
func LoadAgentConfig(path string, overrides map[string]string) (AgentConfig, error) {
	var c AgentConfig
	if err := loadConfig(path, "#Agent", overrides, &c); err != nil {
		return AgentConfig{}, err
	}
	return c, nil
}

// LoadHubConfig is LoadAgentConfig for a hub, checked against #Hub.
func LoadHubConfig(path string, overrides map[string]string) (HubConfig, error) {
	var c HubConfig
	if err := loadConfig(path, "#Hub", overrides, &c); err != nil {
		return HubConfig{}, err
	}
	return c, nil
}

func loadConfig(path, name string, overrides map[string]string, target any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = invalidFile(path, "the evaluation of CUE panicked, which is a fault of CUE: %v", r)
		}
	}()
	source, err := durable.Read(path, MaxConfigBytes)
	if errors.Is(err, durable.ErrTooLarge) {
		return invalidFile(path, "larger than %d bytes", MaxConfigBytes)
	}
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	ctx := cuecontext.New()
	def, err := definition(ctx, name)
	if err != nil {
		return err
	}
	p := &problems{files: map[string]string{path: path}}
	doc, err := parseConfig(ctx, path, source, p)
	if err != nil {
		return err
	}
	if doc, err = override(ctx, def, doc, overrides, p); err != nil {
		return err
	}
	v := def.Unify(doc)
	if err := validate(v); err != nil {
		p.addCUE(err)
		deepen(p, v, 0)
		return p.err()
	}
	(&decoder{p: p}).decode(v, reflect.ValueOf(target).Elem())
	if bounded, ok := target.(interface{ check(*problems) }); ok {
		bounded.check(p)
	}
	if err := p.err(); err != nil {
		return err
	}
	return absolutePaths(reflect.ValueOf(target).Elem(), filepath.Dir(path))
}

// parseConfig evaluates the file alone. It must be complete by itself, since
// overrides replace its values and do not unify with them.
func parseConfig(ctx *cue.Context, path string, source []byte, p *problems) (cue.Value, error) {
	f, err := parser.ParseFile(path, source)
	if err != nil {
		p.addCUE(err)
		return cue.Value{}, p.err()
	}
	for spec := range f.ImportSpecs() {
		if strings.Contains(unquoted(spec.Path.Value), ".") {
			p.list = append(p.list, Problem{Position: p.position(spec.Pos()),
				Message: fmt.Sprintf("import %s: a configuration is one file; it is checked against the built-in definition anyway", spec.Path.Value)})
			return cue.Value{}, p.err()
		}
	}
	for _, decl := range f.Decls {
		if embed, ok := decl.(*ast.EmbedDecl); ok { // a seed, say: what it is, is not repeated
			p.list = append(p.list, Problem{Position: p.position(embed.Pos()), Message: "no field: want fields, as in device: \"hannover01\"; is this the configuration?"})
			return cue.Value{}, p.err()
		}
	}
	refuseEmbed(f, p)
	p.places = newLocator([]*ast.File{f})
	v := ctx.BuildFile(f)
	if k := v.IncompleteKind(); k != cue.StructKind && v.Err() == nil {
		return cue.Value{}, invalidFile(path, "holds a %v: want fields, as in device: \"hannover01\"", k)
	}
	if err := v.Validate(cue.Concrete(true)); err != nil {
		p.addCUE(err)
	}
	for i := range p.list {
		if referenceRE.MatchString(p.list[i].Message) { // user:password is a field of CUE, too
			p.list[i].Message = "refers to what the file does not define: text stands between quotes"
		}
	}
	return v, p.err()
}

var referenceRE = regexp.MustCompile(`^reference ".*" not found$`)

// override replaces values of doc, at paths that def knows.
func override(ctx *cue.Context, def, doc cue.Value, overrides map[string]string, p *problems) (cue.Value, error) {
	data, err := doc.MarshalJSON()
	if err != nil {
		p.addCUE(err)
		return cue.Value{}, p.err()
	}
	x, err := cuejson.Extract("", data)
	if err != nil {
		return cue.Value{}, err
	}
	root, ok := x.(*ast.StructLit)
	if !ok {
		return cue.Value{}, invalid("the configuration is no struct")
	}
	paths := make([]string, 0, len(overrides))
	for path := range overrides {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		selectors := cue.ParsePath(path).Selectors()
		at, known := lookup(def, selectors)
		if !known {
			p.list = append(p.list, Problem{Path: path, Message: "override: no such value in the configuration"})
			continue
		}
		value, err := overrideValue(ctx, at, overrides[path])
		if err != nil {
			p.list = append(p.list, Problem{Path: path, Message: "override: " + err.Error()})
			continue
		}
		replace(root, selectors, value)
	}
	return ctx.BuildExpr(root), p.err()
}

// lookup follows selectors through a definition: fields, optional ones, and
// entries of maps.
func lookup(def cue.Value, selectors []cue.Selector) (cue.Value, bool) {
	v := def
	for _, sel := range selectors {
		if sel.LabelType() != cue.StringLabel {
			return v, false
		}
		next := v.LookupPath(cue.MakePath(sel))
		if !next.Exists() {
			next = v.LookupPath(cue.MakePath(sel.Optional()))
		}
		if !next.Exists() {
			next = v.LookupPath(cue.MakePath(cue.AnyString))
		}
		if !next.Exists() {
			return v, false
		}
		v = next
	}
	return v, len(selectors) > 0
}

// overrideValue is text as it stands where a string may be, and CUE elsewhere.
func overrideValue(ctx *cue.Context, at cue.Value, text string) (ast.Expr, error) {
	if at.IncompleteKind()&cue.StringKind != 0 {
		return ast.NewString(text), nil
	}
	x, err := parser.ParseExpr("", text)
	if err != nil {
		return nil, fmt.Errorf("%q does not parse: want %v", text, at.IncompleteKind())
	}
	if err := ctx.BuildExpr(x).Validate(cue.Concrete(true)); err != nil {
		return nil, fmt.Errorf("%q is not complete: want %v", text, at.IncompleteKind())
	}
	return x, nil
}

// replace sets the value at selectors in s, making the structs on the way.
func replace(s *ast.StructLit, selectors []cue.Selector, value ast.Expr) {
	name := selectors[0].Unquoted()
	var field *ast.Field
	for _, decl := range s.Elts {
		if f, ok := decl.(*ast.Field); ok {
			if label, _, err := ast.LabelName(f.Label); err == nil && label == name {
				field = f
			}
		}
	}
	if field == nil {
		field = &ast.Field{Label: ast.NewString(name)}
		s.Elts = append(s.Elts, field)
	}
	if len(selectors) == 1 {
		field.Value = value
		return
	}
	inner, ok := field.Value.(*ast.StructLit)
	if !ok {
		inner = ast.NewStruct()
		field.Value = inner
	}
	replace(inner, selectors[1:], value)
}
