package schema

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds on tags and on properties.desired.
const (
	MaxTagsBytes    = 8 << 10  // tags of a device, as JSON
	MaxDesiredBytes = 32 << 10 // properties.desired of one twin, as JSON
	MaxTwinDepth    = 10       // levels of tags and of properties
	MaxTwinKey      = 512      // bytes of a property's name
)

// checkObject bounds free-form JSON that ends up in a twin.
func checkObject(m map[string]any, size int, path []string, p *problems) {
	if m == nil {
		return
	}
	b, err := json.Marshal(m)
	if err != nil {
		p.add(path, "%v", err)
		return
	}
	if len(b) > size {
		p.add(path, "%d bytes as JSON: at most %d", len(b), size)
		return
	}
	checkNested(m, 1, path, p)
}

func checkNested(x any, depth int, path []string, p *problems) {
	switch x := x.(type) {
	case nil:
		p.add(path, "null deletes a property in a twin's patch: leave the property out")
	case map[string]any:
		if depth > MaxTwinDepth {
			p.add(path, "more than %d levels", MaxTwinDepth)
			return
		}
		for _, k := range slices.Sorted(maps.Keys(x)) {
			checkProperty(k, extend(path, k), p)
			checkNested(x[k], depth+1, extend(path, k), p)
		}
	case []any:
		if depth > MaxTwinDepth {
			p.add(path, "more than %d levels", MaxTwinDepth)
			return
		}
		for i, v := range x {
			checkNested(v, depth+1, extend(path, strconv.Itoa(i)), p)
		}
	}
}

// checkProperty refuses the names that package twin does not take. A twin that
// is refused only when it is declared is refused too late: the commit is the
// target by then, and nothing of it could be started.
func checkProperty(name string, path []string, p *problems) {
	switch {
	case name == "":
		p.add(path, "a property has no name")
	case len(name) > MaxTwinKey:
		p.add(path, "property name of %d bytes: at most %d", len(name), MaxTwinKey)
	case strings.HasPrefix(name, "$"):
		p.add(path, "property %q: names that start with $ are the twin's own", name)
	case strings.ContainsAny(name, "$."):
		p.add(path, "property %q: names hold no $ and no dot, which separates names in a twin's paths", name)
	case strings.ContainsFunc(name, unicode.IsControl) || !utf8.ValidString(name):
		p.add(path, "property %q: names hold no control characters", name)
	}
}
