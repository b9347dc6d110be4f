package schema_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tidemark-edge/tidemark/schema"
)

func TestReadTreeRefuses(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	mode := func(m fs.FileMode) *fstest.MapFile { return &fstest.MapFile{Data: []byte("target"), Mode: m} }
	many := fstest.MapFS{}
	for i := range schema.MaxTreeFiles + 1 {
		many[fmt.Sprintf("x%d.cue", i)] = file("")
	}
	large := fstest.MapFS{}
	for i := range schema.MaxTreeBytes/schema.MaxFileBytes + 1 {
		large[fmt.Sprintf("x%d.cue", i)] = file(strings.Repeat(" ", schema.MaxFileBytes))
	}
	for name, c := range map[string]struct {
		tree fstest.MapFS
		want string
	}{
		"no module":     {fstest.MapFS{"cue.mod/module.cue": nil, "x.cue": file("")}, "cue.mod/module.cue: missing"},
		"symbolic link": {fstest.MapFS{"a/x.cue": mode(fs.ModeSymlink)}, "a/x.cue: a symbolic link"},
		"linked module": {fstest.MapFS{"cue.mod/pkg": mode(fs.ModeSymlink)}, "cue.mod/pkg: a symbolic link"},
		"submodule":     {fstest.MapFS{"lib": mode(fs.ModeIrregular)}, "lib: a submodule"},
		"pointer":       {fstest.MapFS{"x.cue": file("version https://git-lfs.github.com/spec/v1\n")}, "x.cue: a Git LFS pointer"},
		"large file":    {fstest.MapFS{"x.cue": file(strings.Repeat(" ", schema.MaxFileBytes+1))}, "x.cue: larger than"},
		"many files":    {many, "more than 20000 .cue files"},
		"large tree":    {large, "larger than 33554432 bytes together"},
		"long path":     {fstest.MapFS{strings.Repeat("d/", 600) + "x.cue": file("")}, "the path is longer"},
		"odd path":      {fstest.MapFS{"a:b/x.cue": file("")}, "the characters : and"},
		"second module": {fstest.MapFS{"a/cue.mod/module.cue": file("")}, "a/cue.mod: a CUE module within"},
		"local module":  {fstest.MapFS{"cue.mod/local-module.cue": file("")}, "do not commit it"},
	} {
		t.Run(name, func(t *testing.T) {
			if f, ok := c.tree["cue.mod/module.cue"]; ok && f == nil {
				delete(c.tree, "cue.mod/module.cue")
			} else {
				c.tree["cue.mod/module.cue"] = file(goldenModule)
			}
			_, err := schema.ReadTree(context.Background(), c.tree)
			var invalid *schema.InvalidError
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestReadTreeTakesOnlyDefinitions: what is not CUE is neither read nor minded.
func TestReadTreeTakesOnlyDefinitions(t *testing.T) {
	tree, err := schema.ReadTree(context.Background(), fstest.MapFS{
		"cue.mod/module.cue": {Data: []byte(goldenModule)},
		"a/x.cue":            {Data: []byte("package a")},
		"README.md":          {Data: []byte("version https://git-lfs")},
		"docs/latest":        {Mode: fs.ModeSymlink, Data: []byte("v1")},
		"image.bin":          {Data: make([]byte, 2*schema.MaxFileBytes)},
		".git/x.cue":         {Data: []byte("x")},
		".cue":               {Data: []byte("x")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(tree)); !slices.Equal(got, []string{"a/x.cue", "cue.mod/module.cue"}) {
		t.Errorf("got %v", got)
	}
}

// brokenFS fails to read: that is no fault of the definitions.
type brokenFS struct{ fs.FS }

func (b brokenFS) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, ".cue") {
		return nil, errors.New("the disk says no")
	}
	return b.FS.Open(name)
}

func TestReadTreeFailure(t *testing.T) {
	tree := fstest.MapFS{"cue.mod/module.cue": {Data: []byte(goldenModule)}}
	_, err := schema.ReadTree(context.Background(), brokenFS{tree})
	var invalid *schema.InvalidError
	if err == nil || errors.As(err, &invalid) || !strings.Contains(err.Error(), "cue.mod/module.cue: the disk says no") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := schema.ReadTree(ctx, tree); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestLoadAll(t *testing.T) {
	tree := fstest.MapFS{
		"cue.mod/module.cue": {Data: []byte(goldenModule)},
		"fleet.cue":          {Data: []byte("package fleet\n\nimport \"" + schema.DefinitionsPath + "\"\n\n#device: schema.#Device\n")},
		"templates/x.cue":    {Data: []byte("package templates\n\n#Device: {}\n")},
		"_old/d9/device.cue": {Data: []byte("package fleet\n\ndevice: name: \"d9\"\n")},
	}
	for name, source := range schema.Definitions() {
		tree[vendored+"/"+name] = &fstest.MapFile{Data: source}
	}
	for dir, body := range map[string]string{
		"a/d1":    "name: \"d1\", identity: \"U" + strings.Repeat("B", 55) + "\", tags: x: 1",
		"a/d2":    "name: \"d2\", nmae: 1",
		"b/d3":    "name: \"d4\"",
		"b/d5":    "name: \"d5\"",
		"c/d5":    "name: \"d5\"",
		"c/Upper": "name: \"upper\"",
	} {
		tree[dir+"/device.cue"] = &fstest.MapFile{Data: []byte("package fleet\n\ndevice: #device & {" + body + "}\n")}
	}
	entries, err := schema.LoadAll(context.Background(), tree)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if e.Err != nil {
			got = append(got, e.Dir+": "+e.Err.Error())
			continue
		}
		got = append(got, fmt.Sprintf("%s: %s %s %v", e.Dir, e.Name, e.Identity[:2], e.Tags))
	}
	want := []string{
		"a/d1: d1 UB map[x:1]",
		"a/d2: a/d2/device.cue:3:32: device.nmae: field not allowed: is name meant?",
		`b/d3: b/d3/device.cue:3:20: device.name: "d4" is not "d3", the name of the directory and of the device: one of them is a mistake`,
		"b/d5: device d5 is defined in several directories: b/d5, c/d5: keep one, or name one by repository.path",
		"c/Upper: c/Upper: defines a device, which cannot be named so: name \"Upper\": want 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit",
		"c/d5: device d5 is defined in several directories: b/d5, c/d5: keep one, or name one by repository.path",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func FuzzLoad(f *testing.F) {
	for _, c := range goldenCases(f) {
		if file := c.tree["sites/hannover/hannover01/device.cue"]; file != nil {
			f.Add(string(file.Data))
		}
	}
	f.Fuzz(func(t *testing.T, source string) {
		for _, costly := range []string{"list", "strings", "math", "for", "*", "+"} {
			if len(source) > 2000 || strings.Contains(source, costly) {
				return // costs are the sandbox's to bound
			}
		}
		tree := fleetWith("", "{}")
		delete(tree, "d1/device.cue")
		tree["fleet.cue"] = &fstest.MapFile{Data: []byte("package fleet\n\nimport \"" + schema.DefinitionsPath + "\"\n\n#device: schema.#Device\n")}
		tree["hannover01/device.cue"] = &fstest.MapFile{Data: []byte(source)}
		desired, err := schema.Load(context.Background(), tree, "hannover01")
		var invalid *schema.InvalidError
		if err != nil && !errors.As(err, &invalid) {
			t.Errorf("%v is no InvalidError", err)
		}
		if err == nil && desired.Device != "hannover01" {
			t.Errorf("accepted %+v", desired)
		}
	})
}
