package schema

import (
	"errors"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/format"
)

// exporter writes #reported definitions as CUE that stands alone.
type exporter struct {
	p     *problems
	valid map[string]bool // by source: modules often share one
}

var (
	twinPath         = cue.ParsePath("twin")
	twinReportedPath = cue.ParsePath("twin.#reported")
)

// reported is the source of v.twin.#reported; empty where it accepts all. path
// is v's.
func (x exporter) reported(v cue.Value, path []string) string {
	if !v.LookupPath(twinPath).Exists() {
		return ""
	}
	r := v.LookupPath(twinReportedPath)
	if !r.Exists() || r.IncompleteKind() == cue.TopKind {
		return ""
	}
	path = append(path[:len(path):len(path)], "twin", "#reported")
	source, err := format.Node(r.Syntax(cue.InlineImports(true), cue.Definitions(true), cue.Optional(true)))
	if err != nil {
		x.p.add(path, "write it as CUE that stands alone: %v", err)
		return ""
	}
	if ok, seen := x.valid[string(source)]; seen && ok {
		return string(source)
	}
	_, err = CompileReported(string(source))
	x.valid[string(source)] = err == nil
	var refused *InvalidError
	if errors.As(err, &refused) {
		for _, problem := range refused.Problems {
			x.p.add(append(path, splitPath(problem.Path)...), "%s", problem.Message)
		}
	} else if err != nil {
		x.p.add(path, "%v", err)
	}
	return string(source)
}

func splitPath(path string) []string {
	var out []string
	for _, sel := range cue.ParsePath(path).Selectors() {
		out = append(out, sel.String())
	}
	return out
}
