package hub

import (
	"testing"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// TestRemovedModuleSaysSoAndKeepsItsVersions: what a module said does not stay at
// the hub for ever, but its versions do, also where the device then loses its
// state.
func TestRemovedModuleSaysSoAndKeepsItsVersions(t *testing.T) {
	g := newGadget(t, "a")
	c := newCloud(t, g.entry())
	g.link(c)
	ctx := testContext(t)
	declare := func(g *gadget, modules ...string) {
		t.Helper()
		desired := schema.Desired{Device: "a"}
		for _, m := range modules {
			desired.Modules = append(desired.Modules, schema.Module{Name: m, Twin: schema.TwinSpec{Desired: map[string]any{"secret": m}}})
		}
		if err := g.leaf.Declare(ctx, desired); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(what string, f func(twin.Document) bool) twin.Document {
		t.Helper()
		var d twin.Document
		until(t, what, func() bool {
			var err error
			d, err = c.hub.Twins().Get(ctx, "a", "sensor")
			return err == nil && f(d)
		})
		return d
	}
	declare(g, "sensor", "other")
	first := holds("it is declared", func(d twin.Document) bool { return !d.Removed })
	declare(g, "other")
	removed := holds("it is removed", func(d twin.Document) bool { return d.Removed })
	if p := removed.Properties; len(p.Desired.Values) != 0 || len(p.Reported.Values) != 0 || p.Desired.Version <= first.Properties.Desired.Version {
		t.Errorf("what is left: %+v", p)
	}
	list, err := c.hub.Twins().List(ctx, "a")
	if err != nil || len(list) != 3 || list[1].Removed || !list[2].Removed {
		t.Errorf("list %+v, %v", list, err)
	}
	again := newGadget(t, "a") // another disk
	g.close()
	c.follow(again.entry())
	again.link(c)
	declare(again, "sensor", "other")
	back := holds("it is named again", func(d twin.Document) bool { return !d.Removed })
	if back.Properties.Desired.Version <= removed.Properties.Desired.Version || back.Properties.Reported.Version <= removed.Properties.Reported.Version {
		t.Errorf("%+v after %+v", back.Properties, removed.Properties)
	}
}
