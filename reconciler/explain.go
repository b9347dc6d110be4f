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
	for i, a := range p {
		if a.Verb != Remove || !strings.HasPrefix(a.Reason, "replaced:") {
			continue
		}
		at := slices.IndexFunc(observed.Containers, func(c schema.Container) bool { return c.ID == a.Container })
		to, _ := desired.Module(a.Module)
		for _, k := range known {
			if from, ok := k.Module(a.Module); ok && from.Hash() == observed.Containers[at].Hash {
				p[i].Reason = "replaced: " + strings.Join(changes(from, to), ", ") + " changed"
				break
			}
		}
		for j := range p {
			if p[j].Verb == Start && p[j].Module == a.Module {
				p[j].Reason = p[i].Reason
			}
		}
	}
	return p
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
	for _, name := range []string{"status", "restart", "dependsOn", "twin"} {
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
