package schema

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// hint says what to do where CUE's own message only says that it is not so, and
// at which part of the path.
func hint(at []string, message string) ([]string, string) {
	if strings.Contains(message, "cannot find module providing package") {
		return at, message + ": nothing is fetched: vendor it under cue.mod/pkg"
	}
	if better := cmp.Or(badProbe(at, message), badMount(at, message)); better != "" {
		return at, better
	}
	if message != "field not allowed" {
		return at, message
	}
	for i := 1; i < len(at); i++ {
		if better := badKey(at[i-1], unquoted(at[i])); better != "" {
			return at[:i+1], better
		}
	}
	if len(at) == 0 {
		return at, message
	}
	if near := nearest(unquoted(at[len(at)-1]), fieldNames()); len(near) > 0 && len(near) <= 3 {
		return at, "field not allowed: is " + strings.Join(near, " or ") + " meant?"
	}
	if len(at) > 2 && at[len(at)-3] == "mounts" {
		return at, "field not allowed: a mount says volume, tmpfs or host, and readOnly"
	}
	return at, message
}

// hintDefinitions says of a field that there is, and that the author's own
// definitions refuse, why that may be.
func hintDefinitions(at []string, message string) string {
	if message != "field not allowed" || len(at) == 0 || !slices.Contains(fieldNames(), unquoted(at[len(at)-1])) {
		return message
	}
	return message + ": the definitions in " + vendorDir + " are of another release: if they are older, replace them by those that `tidemark init` writes into an empty directory"
}

// badProbe says what is wrong with a #Probe where CUE prints how it is defined;
// "" when that is not so.
func badProbe(at []string, message string) string {
	path := "." + joinPath(at)
	if m := fieldCountRE.FindStringSubmatch(message); m != nil && probeRE.MatchString(path) {
		found := map[string]string{"Min": "none", "Max": "more than one"}[m[1]]
		return "a probe is exactly one of exec, http, tcp and nats: there is " + found
	}
	switch {
	case strings.HasSuffix(path, ".exec.command") && notWordsRE.MatchString(message):
		return notWords
	case strings.HasSuffix(path, ".exec.command.0") && strings.HasPrefix(message, `invalid value "" `):
		return "a command begins with its program, which has a name"
	}
	return ""
}

// badMount says what is wrong with a #Mount where CUE prints how it is defined;
// "" when that is not so.
func badMount(at []string, message string) string {
	if len(at) < 2 || at[len(at)-2] != "mounts" {
		return ""
	}
	if m := mountCountRE.FindStringSubmatch(message); m != nil && m[1] == "Min" {
		return mountIs + ": there is none; say volume: \"data\" for what is to outlive the container, tmpfs: \"16Mi\" for memory, or host: with a path on the device"
	} else if m != nil {
		return mountIs + ": there is more than one; keep one, and mount the other at a path of its own"
	}
	if notMountRE.MatchString(message) {
		return mountIs + `, as in {volume: "data"}`
	}
	return ""
}

const mountIs = "a mount is exactly one of volume, tmpfs and host"

const notWords = `a command is a list of words, the program first, as in ["/app/check", "-v"]: no shell splits it`

var (
	mountCountRE = regexp.MustCompile(`\(does not satisfy struct\.(Min|Max)Fields\(2\)\)`)
	notMountRE   = regexp.MustCompile(`^conflicting values .* \(mismatched types `)
	fieldCountRE = regexp.MustCompile(`\(does not satisfy struct\.(Min|Max)Fields\(4\)\)`)
	probeRE      = regexp.MustCompile(`\.health\.(startup|liveness|readiness)$`)
	notWordsRE   = regexp.MustCompile(`^(incompatible list lengths|conflicting values .* \(mismatched types )`)
)

// badKey says why name cannot be an entry of the map of that name; "" when it
// can, or when that is no map.
func badKey(in, name string) string {
	switch in {
	case "modules", "dependsOn":
		if err := CheckName(name); err != nil {
			return err.Error()
		}
	case "env":
		if !envNameRE.MatchString(name) || strings.HasPrefix(name, "TIDEMARK_") {
			return fmt.Sprintf("environment variable %q: want letters, digits and _, and not TIDEMARK_, which the agent sets", name)
		}
	case "mounts":
		if !strings.HasPrefix(name, "/") || path.Clean(name) != name || reservedRE.MatchString(name) {
			return fmt.Sprintf("mount path %q: want an absolute path without . and .., and not /dev, nor in /proc, /sys or /run/tidemark", name)
		}
	case "desired":
		if strings.HasPrefix(name, "$") {
			return fmt.Sprintf("property %q: names that start with $ are the twin's own", name)
		}
	}
	return ""
}

var (
	envNameRE  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	reservedRE = regexp.MustCompile(`^(/|/dev|/(proc|sys|run/tidemark)(/.*)?)$`)
)

// fieldNames are all field names in the definitions.
var fieldNames = sync.OnceValue(func() []string {
	comment, re := regexp.MustCompile(`(?m)^\s*//.*$`), regexp.MustCompile(`(?m)(?:^|\s)([a-z][A-Za-z]*)[?!]?:`)
	var names []string
	for _, source := range Definitions() {
		for _, m := range re.FindAllSubmatch(comment.ReplaceAll(source, nil), -1) {
			names = append(names, string(m[1]))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
})

// nearest are the names that a person who wrote s may have meant: at most two
// letters off, and fewer than half of them.
func nearest(s string, names []string) []string {
	best, found := min(2, (len(s)-1)/2), []string{}
	for _, name := range names {
		d := editDistance(s, name)
		if d < best {
			best, found = d, nil
		}
		if d > 0 && d == best {
			found = append(found, name)
		}
	}
	return found
}

// editDistance counts insertions, deletions, replacements and swaps of
// neighbours (the optimal string alignment distance).
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
