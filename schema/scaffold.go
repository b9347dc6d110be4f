package schema

import (
	_ "embed"
	"fmt"
	"strings"

	"cuelang.org/go/mod/module"
)

// languageVersion is that of the CUE which evaluates definitions here, and the
// lowest that may vet them elsewhere.
const languageVersion = "v0.17.0"

// Scaffold is a new fleet repository with one device.
type Scaffold struct {
	Module string // CUE's name for the repository; empty is example.com/fleet
	Site   string // directory of the first site; empty is "home"
	Device string // the first device
}

//go:embed scaffold/README.md
var scaffoldReadme string

// Files are the repository's files by slash-separated path. They load, and stock
// `cue vet -c ./...` accepts them offline.
func (s Scaffold) Files() (map[string][]byte, error) {
	if s.Module == "" {
		s.Module = "example.com/fleet"
	}
	if s.Site == "" {
		s.Site = "home"
	}
	s.Module = strings.TrimSuffix(s.Module, "@v0")
	if err := module.CheckPathWithoutVersion(s.Module); err != nil {
		return nil, fmt.Errorf("module %q: %w", s.Module, err)
	}
	for what, name := range map[string]string{"site": s.Site, "device": s.Device} {
		if err := CheckName(name); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	replace := strings.NewReplacer("SITE", s.Site, "DEVICE", s.Device, "CUEVERSION", languageVersion,
		"SCHEMA", DefinitionsPath, "MODULE", s.Module, "LANGUAGE", languageVersion).Replace
	dir := "sites/" + s.Site
	files := map[string][]byte{
		"README.md":                          []byte(replace(scaffoldReadme)),
		"cue.mod/module.cue":                 []byte(replace(scaffoldModule)),
		"fleet.cue":                          []byte(replace(scaffoldFleet)),
		dir + "/site.cue":                    []byte(replace(scaffoldSite)),
		dir + "/" + s.Device + "/device.cue": []byte(replace(scaffoldDevice)),
	}
	for name, source := range Definitions() {
		files[vendorDir+"/"+name] = source
	}
	return files, nil
}

const scaffoldModule = `module: "MODULE@v0"
language: version: "LANGUAGE"
`

const scaffoldFleet = `// What every device of the fleet has.
package fleet

import "SCHEMA"

// #device is where every device begins. The layers below (site, device) unify
// with it: they add and fill in, and cannot contradict it.
#device: schema.#Device & {
	// modules: [_]: restart: max: "1m" // for each module of each device
}
`

const scaffoldSite = `// What every device of SITE has.
package fleet

#device: tags: site: "SITE"
`

const scaffoldDevice = `package fleet

device: #device & {
	name: "DEVICE"

	// The hub admits the device once its key is here:
	// identity: "U…" // what ` + "`tidemark enroll`" + ` prints on the device

	// What it runs. With a probe, hello counts as healthy once it answers, a commit
	// is rolled back if it does not come to that, and hello is restarted when it
	// answers no more. http is one of four ways to ask: see #Probe in the definitions.
	// modules: hello: {
	// 	image: "registry.example.com/hello@sha256:…"
	// 	health: liveness: http: port: 8080
	// }
}
`
