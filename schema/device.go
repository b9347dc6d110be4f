package schema

import (
	"cmp"
	"reflect"
	"slices"

	"cuelang.org/go/cue"
)

// deviceDocument is #Device as its JSON is.
type deviceDocument struct {
	Name     string            `json:"name"`
	Identity string            `json:"identity"`
	Tags     map[string]any    `json:"tags"`
	Twin     TwinSpec          `json:"twin"`
	Gate     Duration          `json:"gate"`
	Deadline Duration          `json:"deadline"`
	Keep     []Image           `json:"keep"`
	Routes   map[string]Route  `json:"routes"`
	Modules  map[string]Module `json:"modules"`
}

// decodeDevice reads a checked #Device. Schemas of reported come from written,
// the value as the repository has it: they are definitions, not data.
func decodeDevice(checked, written cue.Value, p *problems) Desired {
	root := []string{"device"}
	var doc deviceDocument
	(&decoder{p, root}).decode(checked, reflect.ValueOf(&doc).Elem())
	x := exporter{p: p, valid: map[string]bool{}}
	doc.Twin.Reported = x.reported(written, root)
	d := Desired{
		Device:   doc.Name,
		Identity: doc.Identity,
		Tags:     doc.Tags,
		Twin:     doc.Twin,
		Gate:     doc.Gate,
		Deadline: doc.Deadline,
		Keep:     doc.Keep,
		Modules:  make([]Module, 0, len(doc.Modules)),
	}
	modules := written.LookupPath(modulesPath)
	for name, m := range doc.Modules {
		m.Name = name
		m.Twin.Reported = x.reported(modules.LookupPath(cue.MakePath(cue.Str(name))), append(root, "modules", name))
		d.Modules = append(d.Modules, m)
	}
	for name, r := range doc.Routes {
		r.Name = name
		d.Routes = append(d.Routes, r)
	}
	slices.SortFunc(d.Routes, func(a, b Route) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(d.Modules, func(a, b Module) int { return cmp.Compare(a.Name, b.Name) })
	return d
}

var modulesPath = cue.ParsePath("modules")
