package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// wish is one value that an override sets.
type wish struct {
	path  []string // below desired
	value any      // nil takes the key away
}

// wishes are the values of a merge patch, in the order of their keys.
func wishes(patch map[string]any, at []string) []wish {
	var all []wish
	for _, key := range slices.Sorted(maps.Keys(patch)) {
		here := append(slices.Clone(at), key)
		if nested, ok := patch[key].(map[string]any); ok && len(nested) > 0 {
			all = append(all, wishes(nested, here)...)
		} else {
			all = append(all, wish{here, patch[key]})
		}
	}
	return all
}

func (w wish) patch() map[string]any {
	value := w.value
	for _, key := range slices.Backward(w.path) {
		value = map[string]any{key: value}
	}
	return value.(map[string]any) // a path is never empty
}

func (w wish) json() []byte {
	if w.value == nil {
		return nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(w.value) // which JSON brought
	return bytes.TrimSpace(b.Bytes())
}

// declaration is the line of CUE that says it, for the twin of a module or of the
// device.
func (w wish) declaration(module string) string {
	var b strings.Builder
	for _, label := range append(labelsOf(module), w.path...) {
		if schema.CheckName(label) == nil && !strings.Contains(label, "-") && (label[0] < '0' || label[0] > '9') {
			fmt.Fprintf(&b, "%s: ", label)
		} else {
			quoted, _ := json.Marshal(label) // a string
			fmt.Fprintf(&b, "%s: ", quoted)
		}
	}
	if w.value == nil {
		return "// take away " + strings.TrimSuffix(b.String(), ": ")
	}
	return b.String() + string(w.json())
}

// labelsOf are those that lead to desired in a device's package.
func labelsOf(module string) []string {
	if module == "" {
		return []string{"device", "twin", "desired"}
	}
	return []string{"device", "modules", module, "twin", "desired"}
}

// cueOf is an override in CUE.
func cueOf(d twin.Document) string {
	o := d.Properties.Desired.Override
	lines := []string{fmt.Sprintf("// set on %s by %s at %s", d.Device, o.By, o.At.UTC().Format(time.RFC3339))}
	if o.Reason != "" {
		lines[0] += ": " + o.Reason
	}
	for _, w := range wishes(o.Patch, nil) {
		lines = append(lines, w.declaration(d.Module))
	}
	return strings.Join(lines, "\n") + "\n"
}

// export changes a fleet repository so that a device's desired is as it was set.
type export struct {
	device string
	module string
	dir    string // the device's
	tree   schema.Tree
	now    schema.Desired // of the tree
}

// exportTo writes an override into the repository in dir, as far as it may. It
// returns the files that it wrote, and what is left for a person.
func exportTo(ctx context.Context, dir string, d twin.Document) (changed, left []string, err error) {
	fleet, err := fleetDir([]string{dir})
	if err != nil {
		return nil, nil, err
	}
	tree, err := schema.ReadTree(ctx, fleet)
	if err != nil {
		return nil, nil, err
	}
	before, err := tree.Devices(ctx)
	if err != nil {
		return nil, nil, err
	}
	e := export{device: d.Device, module: d.Module, tree: tree}
	for _, entry := range before {
		if entry.Name == d.Device {
			e.dir = entry.Dir
		}
	}
	if e.now, err = tree.Load(ctx, d.Device, e.dir); err != nil {
		return nil, nil, fmt.Errorf("%s does not define %s well: %w", dir, d.Device, err)
	}
	for _, w := range wishes(d.Properties.Desired.Override.Patch, nil) {
		why, err := e.grant(ctx, w)
		if err != nil {
			return nil, nil, err
		}
		if why != "" {
			left = append(left, why)
		}
	}
	if err := e.vet(ctx, before); err != nil {
		return nil, nil, err
	}
	for _, file := range slices.Sorted(maps.Keys(e.tree)) {
		if bytes.Equal(e.tree[file], tree[file]) {
			continue
		}
		// In a person's working copy: Git has what was there before.
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(file)), e.tree[file], 0o644); err != nil {
			return changed, left, err
		}
		changed = append(changed, file)
	}
	return changed, left, nil
}

// grant has the tree say what w asks for, in whichever way changes nothing else;
// otherwise it says why a person has to.
func (e *export) grant(ctx context.Context, w wish) (why string, err error) {
	want, changed, err := twin.Merge(twin.Section{Values: e.desired(e.now)}, w.patch(), time.Time{})
	if err != nil || !changed {
		return "", err // the repository says so already
	}
	try := func(tree schema.Tree, err error) bool {
		if err != nil {
			return false
		}
		now, err := tree.Load(ctx, e.device, e.dir)
		if err != nil || !e.only(now, want.Values) {
			return false
		}
		e.tree, e.now = tree, now
		return true
	}
	if w.value != nil && try(e.tree.Append(e.file(), w.declaration(e.module)+"\n")) {
		return "", nil
	}
	places := e.places(w)
	for _, p := range places {
		if path.Dir(p.File) == e.dir && (p.Literal || w.value == nil) && try(e.tree.Write(p, w.json())) {
			return "", nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
	}
	what := w.declaration(e.module)
	if len(places) == 0 {
		return what + ": this value comes from elsewhere; `tidemark render` shows what makes it", nil
	}
	var where []string
	for _, p := range places {
		where = append(where, p.String())
	}
	return fmt.Sprintf("%s: others share the value at %s", what, strings.Join(where, " or ")), nil
}

// places are where the value may come from, those first that name the module.
func (e *export) places(w wish) []schema.Place {
	var sure, maybe []schema.Place
	for _, p := range e.tree.Places(append([]string{"twin", "desired"}, w.path...)) {
		if dir := path.Dir(p.File); dir != "." && dir != e.dir && !strings.HasPrefix(e.dir, dir+"/") && path.Base(dir) != e.device && e.isDevice(dir) {
			continue // of another device
		}
		owner := p.Labels[:len(p.Labels)-len(w.path)-2]
		i := slices.Index(owner, "modules")
		switch {
		case i >= 0 && i+1 < len(owner) && owner[i+1] == e.module:
			sure = append(sure, p)
		case i >= 0: // of another module
		case (e.module == "") == (len(owner) > 0 && strings.TrimPrefix(owner[len(owner)-1], "#") == "device"):
			maybe = append(maybe, p)
		}
	}
	return append(sure, maybe...)
}

func (e *export) isDevice(dir string) bool { return slices.Contains(e.tree.DeviceDirs(), dir) }

// file is where what stands nowhere yet is written.
func (e *export) file() string {
	name := "desired.cue"
	if e.module != "" {
		name = "desired-" + e.module + ".cue"
	}
	return path.Join(e.dir, name)
}

// desired is that of the twin.
func (e *export) desired(d schema.Desired) map[string]any {
	if e.module == "" {
		return d.Twin.Desired
	}
	m, _ := d.Module(e.module)
	return m.Twin.Desired
}

// only reports whether a definition has these values, and else is as it was.
func (e *export) only(now schema.Desired, values map[string]any) bool {
	without := func(d schema.Desired) schema.Desired {
		d.Modules = slices.Clone(d.Modules)
		if e.module == "" {
			d.Twin.Desired = nil
		}
		for i := range d.Modules {
			if d.Modules[i].Name == e.module {
				d.Modules[i].Twin.Desired = nil
			}
		}
		return d
	}
	return sameJSON(e.desired(now), values) && reflect.DeepEqual(without(now), without(e.now))
}

// sameJSON compares values whose numbers may be of different types.
func sameJSON(a, b map[string]any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	if len(a) == 0 && len(b) == 0 {
		return true
	}
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// vet checks that no device is worse off, and that none below the device's
// directory, which its files are layers of, has changed: there must be none.
func (e *export) vet(ctx context.Context, before []schema.Entry) error {
	after, err := e.tree.Devices(ctx)
	if err != nil {
		return err
	}
	for i, entry := range after {
		if strings.HasPrefix(entry.Dir, e.dir+"/") {
			return fmt.Errorf("%s is also a layer of %s: what is written there would be %s's too", e.dir, entry.Name, entry.Name)
		}
		if i >= len(before) || before[i].Dir != entry.Dir || before[i].Err == nil && entry.Err != nil {
			return errors.Join(fmt.Errorf("the change would harm %s", entry.Name), entry.Err)
		}
	}
	return nil
}
