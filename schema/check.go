package schema

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds that CUE cannot say.
const (
	MaxTagsBytes    = 8 << 10  // tags of a device, as JSON
	MaxDesiredBytes = 32 << 10 // properties.desired of one twin, as JSON
	MaxTwinDepth    = 10       // levels of tags and of properties
	MaxTwinKey      = 512      // bytes of a property's name
	MaxEnvBytes     = 64 << 10 // names and values of one module's environment
	MaxArgsBytes    = 64 << 10 // one module's arguments
	maxGate         = Duration(24 * time.Hour)
	maxStop         = Duration(time.Hour)
	minRestart      = Duration(100 * time.Millisecond)
	maxRestartMin   = Duration(time.Hour)
	maxRestartMax   = Duration(24 * time.Hour)
	maxModules      = 500
	maxArgs         = 256 // of one module
	maxEnv          = 256 // variables of one module
	maxMounts       = 64  // of one module
	maxDependsOn    = 64  // of one module
	minMemory       = Bytes(1 << 20)
)

// checkDevice notes what is wrong with d and beyond CUE: sizes, ranges, and
// what concerns several modules.
func checkDevice(d Desired, p *problems) {
	root := []string{"device"}
	if d.Gate > maxGate {
		p.add(extend(root, "gate"), "%v is longer than %v", time.Duration(d.Gate), time.Duration(maxGate))
	}
	checkObject(d.Tags, MaxTagsBytes, extend(root, "tags"), p)
	checkObject(d.Twin.Desired, MaxDesiredBytes, []string{"device", "twin", "desired"}, p)
	checkCount(len(d.Modules), maxModules, extend(root, "modules"), p)
	for _, m := range d.Modules {
		checkModule(m, []string{"device", "modules", m.Name}, p)
	}
	checkDependencies(d, p)
}

func checkModule(m Module, path []string, p *problems) {
	if _, err := ParseImage(string(m.Image)); err != nil {
		p.add(extend(path, "image"), "%v", err)
	}
	checkObject(m.Twin.Desired, MaxDesiredBytes, append(path[:3:3], "twin", "desired"), p)
	checkTimes(m, path, p)
	checkCount(len(m.Env), maxEnv, extend(path, "env"), p)
	checkCount(len(m.Mounts), maxMounts, extend(path, "mounts"), p)
	checkCount(len(m.DependsOn), maxDependsOn, extend(path, "dependsOn"), p)
	if m.Limits.Memory > 0 && m.Limits.Memory < minMemory {
		p.add(append(path[:3:3], "limits", "memory"), "%d bytes is below 1Mi, in which nothing runs: is a suffix missing, as in \"64Mi\"?", m.Limits.Memory)
	}
	checkCount(len(m.Args), maxArgs, extend(path, "args"), p)
	size := 0
	for i, arg := range m.Args {
		size += len(arg) + 1
		if strings.ContainsRune(arg, 0) {
			p.add(append(path[:3:3], "args", strconv.Itoa(i)), "holds a zero byte, which no argument can")
		}
	}
	if size > MaxArgsBytes {
		p.add(extend(path, "args"), "%d bytes: at most %d", size, MaxArgsBytes)
	}
	size = 0
	for _, name := range slices.Sorted(maps.Keys(m.Env)) {
		size += len(name) + len(m.Env[name]) + 2
		if strings.ContainsRune(m.Env[name], 0) {
			p.add(append(path[:3:3], "env", name), "holds a zero byte, which no environment variable can")
		}
	}
	if size > MaxEnvBytes {
		p.add(extend(path, "env"), "%d bytes: at most %d; put more into a file on a volume, or into twin.desired", size, MaxEnvBytes)
	}
	for _, target := range slices.Sorted(maps.Keys(m.Mounts)) {
		if mount := m.Mounts[target]; mount.Tmpfs == 0 && mount.Volume == "" && mount.Host == "" {
			p.add(append(path[:3:3], "mounts", target, "tmpfs"), "0 bytes hold nothing")
		}
	}
}

func checkCount(n, most int, path []string, p *problems) {
	if n > most {
		p.add(path, "%d of them: at most %d", n, most)
	}
}

func checkTimes(m Module, path []string, p *problems) {
	if m.Stop.Timeout > maxStop {
		p.add(append(path[:3:3], "stop", "timeout"), "%v is longer than %v", time.Duration(m.Stop.Timeout), time.Duration(maxStop))
	}
	r := m.Restart
	if r.Min < minRestart || r.Min > maxRestartMin {
		p.add(append(path[:3:3], "restart", "min"), "%v is not within %v and %v", time.Duration(r.Min), time.Duration(minRestart), time.Duration(maxRestartMin))
	}
	if r.Max < r.Min || r.Max > maxRestartMax {
		p.add(append(path[:3:3], "restart", "max"), "%v is not within restart.min, %v, and %v", time.Duration(r.Max), time.Duration(r.Min), time.Duration(maxRestartMax))
	}
}

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
