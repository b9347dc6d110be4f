package signing

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/tidemark-edge/tidemark/schema"
)

// rule is a schema.ImageRule with its keys loaded.
type rule struct {
	name  string
	match []string // elements of the pattern
	keys  []*key
}

// patternRE is what a repository may consist of, and the asterisk.
var patternRE = regexp.MustCompile(`^[a-z0-9.*-]+(:[0-9*]{1,5})?(/[a-z0-9._*-]+)+$`)

// newRule checks r and loads its keys.
func newRule(r schema.ImageRule) (*rule, error) {
	if r.Name == "" {
		return nil, fmt.Errorf("image rule for %q: name is empty: the name is what evidence shows", r.Match)
	}
	match, err := parsePattern(r.Match)
	if err != nil {
		return nil, fmt.Errorf("image rule %s: %w", r.Name, err)
	}
	if len(r.Keys) == 0 {
		return nil, fmt.Errorf("image rule %s: no keys: name at least one file with a public key (cosign.pub)", r.Name)
	}
	out := &rule{name: r.Name, match: match}
	for _, file := range r.Keys {
		k, err := loadKey(file)
		if err != nil {
			return nil, fmt.Errorf("image rule %s: %w", r.Name, err)
		}
		out.keys = append(out.keys, k)
	}
	return out, nil
}

// parsePattern splits a pattern into its elements.
func parsePattern(s string) ([]string, error) {
	const want = "want host/repository, where * stands for any text within one element and ** for any number of elements"
	switch {
	case len(s) > 512:
		return nil, errors.New("match is longer than 512 characters")
	case strings.ContainsAny(s, "@"):
		return nil, fmt.Errorf("match %q names a digest: %s", s, want)
	case s == "**":
		return []string{"**"}, nil
	case !patternRE.MatchString(s):
		return nil, fmt.Errorf("match %q: %s", s, want)
	}
	elements := strings.Split(s, "/")
	for _, e := range elements {
		if e != "**" && strings.Contains(e, "**") {
			return nil, fmt.Errorf("match %q: ** must stand alone between slashes", s)
		}
	}
	return elements, nil
}

// matches reports whether the rule is for repository. It follows every way
// through the pattern at once, so that no pattern is slow.
func (r *rule) matches(repository string) bool {
	elements := strings.Split(repository, "/")
	reached := make([]bool, len(elements)+1) // reached[i]: the pattern so far can stand for the first i elements
	reached[0] = true
	for _, p := range r.match {
		next := make([]bool, len(elements)+1)
		for i, ok := range reached {
			switch {
			case p == "**":
				next[i] = ok || i > 0 && next[i-1]
			case ok && i < len(elements):
				hit, err := path.Match(p, elements[i])
				next[i+1] = hit && err == nil
			}
		}
		reached = next
	}
	return reached[len(elements)]
}
