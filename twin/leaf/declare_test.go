package leaf

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tidemark-edge/tidemark/schema"
)

// What Declare refuses Load must refuse: a commit that was accepted and whose
// twins cannot be declared would be the target for ever, with nothing of it
// started.
func TestDeclareTakesEveryTwinThatLoadAccepts(t *testing.T) {
	s := newSite(t)
	l := s.open()
	deep := strings.Repeat(`{"a": `, 10) + "1" + strings.Repeat("}", 10)
	for _, object := range []string{
		`{"a.b": 1}`, `{"a": {"b.c": 1}}`, `{"": 1}`, `{"a$": 1}`, `{"a": [{"$b": 1}]}`, `{"a": [{"b.c": 1}]}`,
		`{"a\nb": 1}`, `{"a\u0085b": 1}`, `{"a\u007fb": 1}`, `{"a": [null]}`, `{"a": 1e400}`, `{"a": -1e308}`, `{"a": 1e-400}`,
		`{"a": 9007199254740993}`, `{"a": 1.5e20}`, `{"a": "\u0000"}`, `{"ä €": "<>&"}`, deep, `{"a": ` + deep + `}`,
		fmt.Sprintf(`{%q: 1}`, strings.Repeat("k", 512)), fmt.Sprintf(`{%q: 1}`, strings.Repeat("k", 513)),
		fmt.Sprintf(`{"a": %q}`, strings.Repeat("v", 8<<10-8)), fmt.Sprintf(`{"a": %q}`, strings.Repeat("v", 32<<10-8)),
	} {
		for _, field := range []string{"tags: %s", "twin: desired: %s", "modules: m: twin: desired: %s"} {
			source := "package fleet\n\nimport \"github.com/tidemark-edge/tidemark/schema\"\n\ndevice: schema.#Device & {\n\tname: \"d1\"\n\tmodules: m: image: \"example.com/m@sha256:" + strings.Repeat("0", 64) + "\"\n\t" + fmt.Sprintf(field, object) + "\n}\n"
			tree := fstest.MapFS{
				"cue.mod/module.cue": {Data: []byte("module: \"example.com/fleet@v0\"\nlanguage: version: \"v0.17.0\"\n")},
				"d1/device.cue":      {Data: []byte(source)},
			}
			for name, definition := range schema.Definitions() {
				tree["cue.mod/pkg/"+schema.DefinitionsPath+"/"+name] = &fstest.MapFile{Data: definition}
			}
			desired, err := schema.Load(t.Context(), tree, "d1")
			if err != nil {
				continue
			}
			if err := l.Declare(t.Context(), desired); err != nil {
				t.Errorf("%.60s: loads, and: %v", source[strings.LastIndex(source, "\t")+1:], err)
			}
		}
	}
}
