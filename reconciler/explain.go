package reconciler

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/tidemark-edge/tidemark/schema"
)

// Explain makes the reasons of a plan more precise where the definition that a
// container was made from is still known: "replaced: env, image changed" in
// place of "replaced: image changed".
func (p Plan) Explain(desired schema.Desired, observed schema.Observed, known ...schema.Desired) Plan {
	catalogs := []*catalog{newCatalog(desired.Modules)}
	for _, d := range known {
		catalogs = append(catalogs, newCatalog(d.Modules))
	}
	return p.explain(observed, catalogs)
}

// explain is Explain; the first catalog is of what is desired.
func (p Plan) explain(observed schema.Observed, catalogs []*catalog) Plan {
	var reasons map[string]string // by module
	for i, a := range p {
		if !strings.HasPrefix(a.Reason, "replaced:") {
			continue
		}
		if reasons == nil {
			reasons = replacements(observed, catalogs)
		}
		if reason := reasons[a.Module]; reason != "" {
			p[i].Reason = reason
		}
	}
	return p
}

// replacements are the precise reasons why modules are replaced, as far as they
// are known.
func replacements(observed schema.Observed, catalogs []*catalog) map[string]string {
	reasons := map[string]string{}
	for _, c := range observed.Containers {
		to, ok := catalogs[0].byName[c.Module]
		if !ok || to.hash == c.Hash || reasons[c.Module] != "" {
			continue
		}
		if from := made(c.Module, c.Hash, catalogs[1:]); from != nil && from.hash == c.Hash {
			reasons[c.Module] = "replaced: " + strings.Join(changes(from.Module, to.Module), ", ") + " changed"
		}
	}
	return reasons
}

// changes names the fields, in their JSON spelling, that differ between two
// definitions and shape the container.
func changes(from, to schema.Module) []string {
	a, b := fields(from), fields(to)
	for name, value := range b {
		if string(a[name]) == string(value) {
			delete(a, name)
		} else {
			a[name] = value
		}
	}
	for _, name := range []string{"status", "restart", "dependsOn", "health", "update", "twin"} {
		delete(a, name) // not part of Module.Hash
	}
	return slices.Sorted(maps.Keys(a))
}

func fields(m schema.Module) map[string]json.RawMessage {
	all := map[string]json.RawMessage{}
	if b, err := json.Marshal(m); err == nil {
		_ = json.Unmarshal(b, &all) // an object, as just written
	}
	return all
}
