package schema

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"
)

// DeviceDirs are the directories that define a device, sorted: one of their own
// files has a top-level field `device`. Nothing is evaluated.
func (t Tree) DeviceDirs() []string { return t.deviceDirs("") }

// deviceDirs are the directories that define a device: one of their own files
// has a top-level field `device`. The layers above have `#device`. With a name,
// only directories of that name are looked at.
func (t Tree) deviceDirs(name string) []string {
	found := map[string]bool{}
	for _, file := range slices.Sorted(maps.Keys(t)) {
		dir, base := path.Split(file)
		dir = path.Clean(dir)
		if found[dir] || ignored(dir) || name != "" && path.Base(dir) != name ||
			strings.HasSuffix(base, "_test.cue") || strings.HasSuffix(base, "_tool.cue") {
			continue
		}
		if name != "" && deviceRE.Match(t[file]) || definesDevice(file, t[file]) {
			found[dir] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// ignored are the directories that `./...` leaves out in stock CUE.
func ignored(dir string) bool {
	if dir == "." {
		return false
	}
	for elem := range strings.SplitSeq(dir, "/") {
		if elem == "cue.mod" || elem == "testdata" || strings.HasPrefix(elem, ".") || strings.HasPrefix(elem, "_") {
			return true
		}
	}
	return false
}

// deviceRE decides for files that do not parse, so that their errors show; and
// where the directory has the right name, without parsing twice.
var deviceRE = regexp.MustCompile(`(?m)^"?device"?\s*:`)

func definesDevice(file string, source []byte) bool {
	if !strings.Contains(string(source), "device") {
		return false
	}
	f, err := parser.ParseFile(file, source)
	if err != nil {
		return deviceRE.Match(source)
	}
	for _, decl := range f.Decls {
		field, ok := decl.(*ast.Field)
		if !ok {
			continue
		}
		if name, _, err := ast.LabelName(field.Label); err == nil && name == "device" && field.Constraint == token.ILLEGAL {
			return true
		}
	}
	return false
}

// deviceDir is the one directory that defines the device of that name.
func (t Tree) deviceDir(device string) (string, error) {
	dirs := t.deviceDirs(device)
	switch {
	case len(dirs) == 1:
		return dirs[0], nil
	case len(dirs) > 1:
		return "", invalid("device %s is defined in several directories: %s: keep one, or name one by repository.path", device, strings.Join(dirs, ", "))
	}
	for file := range t {
		if path.Base(path.Dir(file)) == device && !ignored(path.Dir(file)) {
			return "", invalidFile(path.Dir(file), "no file here has a field `device`: a device's directory says device: #device & {…}")
		}
	}
	return "", invalid("no directory is named %s: a device's definition stands in a directory of its name, and says device: #device & {name: %q, …}", device, device)
}
