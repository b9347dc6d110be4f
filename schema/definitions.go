package schema

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/build"
	"cuelang.org/go/cue/parser"
)

// DefinitionsPath is the import path of the CUE definitions.
const DefinitionsPath = "github.com/tidemark-edge/tidemark/schema"

// vendorDir is where a repository keeps them, so that stock CUE finds them
// offline.
const vendorDir = "cue.mod/pkg/" + DefinitionsPath

//go:embed definitions/*.cue
var definitionFiles embed.FS

// Definitions are the CUE files of the definitions, by name.
func Definitions() map[string][]byte {
	files := map[string][]byte{}
	entries, err := fs.ReadDir(definitionFiles, "definitions")
	if err != nil {
		panic("schema: embedded definitions: " + err.Error()) // in memory: cannot fail
	}
	for _, e := range entries {
		b, err := definitionFiles.ReadFile("definitions/" + e.Name())
		if err != nil {
			panic("schema: embedded definitions: " + err.Error())
		}
		files[e.Name()] = b
	}
	return files
}

// definition compiles the definitions that this binary was built with, and
// looks one up.
func definition(ctx *cue.Context, name string) (cue.Value, error) {
	inst := build.NewContext().NewInstance("/"+path.Base(DefinitionsPath), nil)
	files := Definitions()
	for _, file := range slices.Sorted(maps.Keys(files)) {
		f, err := parser.ParseFile("/definitions/"+file, files[file])
		if err != nil {
			return cue.Value{}, fmt.Errorf("built-in definitions: %w", err)
		}
		if err := inst.AddSyntax(f); err != nil {
			return cue.Value{}, fmt.Errorf("built-in definitions: %w", err)
		}
	}
	if err := inst.Complete(); err != nil {
		return cue.Value{}, fmt.Errorf("built-in definitions: %w", err)
	}
	v := ctx.BuildInstance(inst).LookupPath(cue.ParsePath(name))
	if err := v.Err(); err != nil {
		return cue.Value{}, fmt.Errorf("built-in definitions: %s: %w", name, err)
	}
	return v, nil
}
