package schema

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/build"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/load"
	"cuelang.org/go/cue/parser"
)

// treeRoot is where a tree appears to CUE's loader. It must not exist: the
// loader lays the tree over the machine's own files. (load.Config.FS would be
// the clean way; it does not find cue.mod/pkg, cue v0.17.1.)
const treeRoot = "/.tidemark/tree"

// evaluate renders the device that dir defines.
func (t Tree) evaluate(device, dir string) (desired Desired, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = invalidFile(dir, "the evaluation of CUE panicked, which is a fault of CUE: %v", r)
		}
	}()
	inst, err := t.instance(dir)
	if err != nil {
		return Desired{}, err
	}
	p := &problems{root: treeRoot, places: newLocator(inst.Files), label: "device", otherDefinitions: t.vendorsOthers()}
	ctx := cuecontext.New()
	value := ctx.BuildInstance(inst)
	if err := validate(value); err != nil {
		p.addCUE(err)
		deepen(p, value.LookupPath(devicePath), 0)
		return Desired{}, p.err()
	}
	v := value.LookupPath(devicePath)
	if !v.Exists() {
		return Desired{}, invalidFile(dir, "no field `device` in this directory's package: say device: #device & {name: %q, …}", device)
	}
	checked := v
	if !t.provenDevice(inst) {
		if checked, err = unifyEmbedded(ctx, v, p); err != nil {
			return Desired{}, err
		}
	}
	desired = decodeDevice(checked, v, p)
	if desired.Device != device && desired.Device != "" {
		p.add([]string{"device", "name"}, "%q is not %q, the name of the directory and of the device: one of them is a mistake", desired.Device, device)
	}
	checkDevice(desired, p)
	if err := p.err(); err != nil {
		return Desired{}, err
	}
	return desired, nil
}

// vendorsOthers reports whether the tree has definitions that are not those of
// this binary.
func (t Tree) vendorsOthers() bool {
	ours, others := Definitions(), false
	for name, source := range t {
		if file, ok := strings.CutPrefix(name, vendorDir+"/"); ok {
			others = others || !bytes.Equal(source, ours[file])
		}
	}
	return others
}

var devicePath = cue.ParsePath("device")

// validate asks what `cue vet -c` asks.
func validate(v cue.Value) error {
	return v.Validate(cue.Attributes(true), cue.Definitions(true), cue.Hidden(true), cue.Concrete(true))
}

// instance loads the package in dir, with the layers above it and what it
// imports. Errors are *InvalidError.
func (t Tree) instance(dir string) (*build.Instance, error) {
	overlay := make(map[string]load.Source, len(t))
	for name, source := range t {
		overlay[treeRoot+"/"+name] = load.FromBytes(source)
	}
	args := []string{"./" + dir}
	if top, _, _ := strings.Cut(dir, "/"); len(top) == 1 {
		// CUE v0.17.1 does not look above a top-level directory with a name of one
		// letter for what to import, unless the root itself is asked for, too.
		args = append(args, ".")
	}
	insts := load.Instances(args, &load.Config{
		Dir:        treeRoot,
		ModuleRoot: treeRoot,
		Overlay:    overlay,
		Registry:   noRegistry{},
		Env:        []string{"CUE_REGISTRY=none"},
	})
	if len(insts) != len(args) {
		return nil, invalidFile(dir, "holds %d CUE packages, want one", len(insts))
	}
	inst := insts[0]
	p := &problems{root: treeRoot}
	if inst.Err != nil && t.withoutPackage(dir, p) {
		return nil, p.err()
	}
	if inst.Err != nil {
		p.addCUE(inst.Err)
		return nil, p.err()
	}
	for _, dep := range append([]*build.Instance{inst}, inst.Dependencies()...) {
		if dep.Err != nil {
			p.addCUE(dep.Err)
		}
		for _, f := range dep.Files {
			refuseEmbed(f, p)
		}
	}
	return inst, p.err()
}

// withoutPackage notes the files of dir that have no package clause, where none
// has: CUE's own words for it are hard to understand.
func (t Tree) withoutPackage(dir string, p *problems) bool {
	for _, file := range slices.Sorted(maps.Keys(t)) {
		if path.Dir(file) != path.Clean(dir) {
			continue
		}
		f, err := parser.ParseFile(file, t[file], parser.PackageClauseOnly)
		if err != nil || f.PackageName() != "" {
			return false
		}
		p.list = append(p.list, Problem{Position: Position{file, 1, 1},
			Message: "no package clause: begin with `package fleet`, or the package of the layers above"})
	}
	return len(p.list) > 0
}

// refuseEmbed notes attributes that read other files: only .cue files reach
// the evaluation.
func refuseEmbed(f *ast.File, p *problems) {
	for _, decl := range f.Decls {
		a, ok := decl.(*ast.Attribute)
		if ok && strings.HasPrefix(a.Text, "@extern(") {
			p.list = append(p.list, Problem{Position: p.position(a.Pos()), Message: fmt.Sprintf("%s: definitions are CUE only: write the values here", a.Text)})
		}
	}
}

// deepen looks for further errors where CUE stopped at the first ones.
func deepen(p *problems, v cue.Value, depth int) {
	const enough = 10 * maxProblems
	fields, err := v.Fields(cue.Hidden(true)) // without, a struct with an error has none
	if err != nil || depth > 6 {
		return
	}
	for fields.Next() && len(p.list) < enough {
		if fields.Selector().IsDefinition() {
			continue // need not be complete
		}
		if err := validate(fields.Value()); err != nil {
			p.addCUE(err)
			deepen(p, fields.Value(), depth+1)
		}
	}
}

// unifyEmbedded checks the data of v against the #Device of this binary, and
// fills in its defaults. It takes data, not v itself: where the repository
// vendors definitions with other defaults, those were reviewed, and they hold.
func unifyEmbedded(ctx *cue.Context, v cue.Value, p *problems) (cue.Value, error) {
	data, err := v.MarshalJSON()
	if err != nil {
		p.addCUE(err)
		return cue.Value{}, p.err()
	}
	def, err := definition(ctx, "#Device")
	if err != nil {
		return cue.Value{}, err
	}
	u := def.Unify(ctx.CompileBytes(data))
	if err := validate(u); err != nil {
		p.addCUE(err)
		deepen(p, u, 0)
		return cue.Value{}, p.err()
	}
	return u, nil
}
