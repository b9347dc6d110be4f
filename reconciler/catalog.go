package reconciler

import (
	"maps"
	"slices"

	"github.com/tidemark-edge/tidemark/schema"
)

// catalog is a definition as passes look at it: its modules found by name,
// hashed and put in order once, and not in every pass.
type catalog struct {
	modules []schema.Module // what it was made from
	byName  map[string]*entry
	order   []*entry // each after those it depends on
}

// entry is a module in a catalog.
type entry struct {
	schema.Module
	hash string
}

func newCatalog(modules []schema.Module) *catalog {
	c := &catalog{modules: modules, byName: make(map[string]*entry, len(modules)), order: make([]*entry, 0, len(modules))}
	for _, m := range modules {
		c.byName[m.Name] = &entry{m, m.Hash()}
	}
	for _, m := range inOrder(modules) {
		c.order = append(c.order, c.byName[m.Name])
	}
	return c
}

// runs returns the module if it is declared and shall run.
func (c *catalog) runs(name string) (*entry, bool) {
	e, ok := c.byName[name]
	return e, ok && e.Status != schema.StatusStopped
}

// made returns the definition that a container of that name and hash was made
// from, as far as the catalogs know: exactly it, or else one of that name.
func made(name, hash string, catalogs []*catalog) (found *entry) {
	for _, c := range catalogs {
		if e, ok := c.byName[name]; ok && (found == nil || e.hash == hash) {
			found = e
			if e.hash == hash {
				break
			}
		}
	}
	return found
}

// catalogs are those of the definitions in use, the latest first.
type catalogs []*catalog

// mostCatalogs is enough for target, last-good and the target before.
const mostCatalogs = 4

// of is the catalog of a definition. Definitions are never changed in place, so
// one and the same list of modules is the same definition.
func (c *catalogs) of(d schema.Desired) *catalog {
	for _, known := range *c {
		if same(known.modules, d.Modules) {
			return known
		}
	}
	made := newCatalog(d.Modules)
	*c = slices.Insert(*c, 0, made)
	if len(*c) > mostCatalogs {
		*c = (*c)[:mostCatalogs]
	}
	return made
}

func same(a, b []schema.Module) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// inOrder sorts modules so that each comes after those it depends on, and by
// name among equals. In a dependency cycle, which can never come up, any order
// does.
func inOrder(modules []schema.Module) []schema.Module {
	if !slices.ContainsFunc(modules, func(m schema.Module) bool { return len(m.DependsOn) > 0 }) {
		return modules
	}
	byName := make(map[string]schema.Module, len(modules))
	for _, m := range modules {
		byName[m.Name] = m
	}
	var order []schema.Module
	var visit func(schema.Module)
	visit = func(m schema.Module) {
		if _, unseen := byName[m.Name]; !unseen {
			return
		}
		delete(byName, m.Name)
		for _, name := range slices.Sorted(maps.Keys(m.DependsOn)) {
			if dependency, unseen := byName[name]; unseen {
				visit(dependency)
			}
		}
		order = append(order, m)
	}
	for _, m := range modules {
		visit(m)
	}
	return order
}
