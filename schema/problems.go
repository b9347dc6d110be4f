package schema

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cuelang.org/go/cue/errors"
	"cuelang.org/go/cue/token"
)

const (
	maxProblems = 20  // listed in one InvalidError
	maxMessage  = 400 // bytes of one message: CUE prints whole values
	maxAlso     = 3   // further places of one problem
)

// problems gathers what is wrong with one document, and turns CUE's errors
// into what its author can act on.
type problems struct {
	list   []Problem
	root   string            // what file names start with, and is cut off
	files  map[string]string // other files that are the author's, and how to show them
	places *locator          // finds a place by path where an error has none of its own
	label  string            // stands for the root of a value whose paths begin with a definition

	otherDefinitions bool // the author's definitions are not those of this binary
}

// add notes a problem at a path, with its place.
func (p *problems) add(path []string, format string, args ...any) {
	problem := Problem{Path: joinPath(path), Message: fmt.Sprintf(format, args...)}
	if p.places != nil {
		problem.Position = p.position(p.places.find(path))
	}
	p.list = append(p.list, problem)
}

// addCUE notes every error in err.
func (p *problems) addCUE(err error) {
	for _, e := range errors.Errors(err) {
		p.list = append(p.list, p.convert(e))
	}
}

func (p *problems) convert(e errors.Error) Problem {
	path := slices.Clone(e.Path())
	if root, ok := rootDefinition(path); ok && (p.label == "" || strings.EqualFold(root, p.label)) {
		path = path[1:]
		if p.label != "" {
			path = slices.Insert(path, 0, p.label)
		}
	}
	message := errors.StringWithConfig(e, &errors.Config{OmitPath: true, ToSlash: true})
	message = strings.TrimSpace(message)
	if p.root != "" {
		message = strings.ReplaceAll(message, p.root+"/", "")
	}
	path, message = hint(path, message)
	if p.otherDefinitions {
		message = hintDefinitions(path, message)
	}
	problem := Problem{Path: joinPath(path), Message: message}
	var own []Position
	for _, pos := range errors.Positions(e) {
		at := p.position(pos)
		if p.places != nil && p.places.isHead(pos) {
			continue
		}
		if at.File != "" && !slices.Contains(own, at) {
			own = append(own, at)
		}
	}
	if len(own) == 0 && p.places != nil {
		problem.Position = p.position(p.places.find(path))
	}
	if len(own) > 0 {
		// The place nearest to the value comes first: in the deepest file, and there
		// the last one, which is in what the others are in.
		slices.SortStableFunc(own, func(a, b Position) int {
			return cmp.Or(cmp.Compare(strings.Count(b.File, "/"), strings.Count(a.File, "/")), cmp.Compare(b.Line, a.Line))
		})
		problem.Position = own[0]
		problem.Also = append(problem.Also, own[1:min(len(own), maxAlso+1)]...)
	}
	return problem
}

// rootDefinition is the name of the definition that a path begins with.
func rootDefinition(path []string) (string, bool) {
	if len(path) == 0 {
		return "", false
	}
	return strings.CutPrefix(path[0], "#")
}

// position is pos relative to the repository; zero when it is outside, or in
// vendored definitions, which are not the author's.
func (p *problems) position(pos token.Pos) Position {
	if !pos.IsValid() {
		return Position{}
	}
	at := pos.Position()
	if shown, ok := p.files[at.Filename]; ok {
		return Position{File: shown, Line: at.Line, Column: at.Column}
	}
	file, ok := strings.CutPrefix(at.Filename, p.root+"/")
	if !ok || p.root == "" || strings.HasPrefix(file, "cue.mod/pkg/") {
		return Position{}
	}
	return Position{File: file, Line: at.Line, Column: at.Column}
}

// err is what was gathered, as an *InvalidError; nil if nothing was.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	list := withoutEchoes(mergeByPath(p.list))
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path))
	})
	type said struct {
		at            Position
		path, message string
	}
	seen := map[said]bool{}
	list = slices.DeleteFunc(list, func(problem Problem) bool {
		key := said{problem.Position, problem.Path, problem.Message}
		if problem.Path != "" {
			key.at = Position{} // one value; CUE names it at each of its parts
		}
		defer func() { seen[key] = true }()
		return seen[key]
	})
	e := &InvalidError{Problems: list}
	if len(list) > maxProblems {
		e.Problems, e.More = list[:maxProblems], len(list)-maxProblems
	}
	for i := range e.Problems {
		if m := &e.Problems[i].Message; len(*m) > maxMessage {
			*m = strings.ToValidUTF8((*m)[:maxMessage], "") + "…"
		}
	}
	return e
}

var (
	disjunctionRE = regexp.MustCompile(`^\d+ errors in empty disjunction:?$`)
	conflictRE    = regexp.MustCompile(`^conflicting values ("(?:[^"\\]|\\.)*") and ("(?:[^"\\]|\\.)*")$`)
	wholeRE       = regexp.MustCompile(`^(field not allowed|conflicting values .* \(mismatched types |` + regexp.QuoteMeta(notWords) + `)`)
	generalRE     = regexp.MustCompile(`^(conflicting values |invalid value |explicit error)`)
)

// mergeByPath makes one problem of the several that CUE has for one value that
// fits none of the alternatives: the definition's own words where it has some,
// else the list of what is allowed.
func mergeByPath(list []Problem) []Problem {
	byPath := map[string][]Problem{}
	var order []string
	for _, p := range list {
		if _, seen := byPath[p.Path]; !seen {
			order = append(order, p.Path)
		}
		byPath[p.Path] = append(byPath[p.Path], p)
	}
	var merged []Problem
	for _, path := range order {
		merged = append(merged, mergeAlternatives(byPath[path])...)
	}
	return merged
}

// withoutEchoes leaves out what CUE says of the parts of a value that has no place
// as a whole.
func withoutEchoes(list []Problem) []Problem {
	whole := map[string]bool{}
	for _, p := range list {
		if p.Path != "" && wholeRE.MatchString(p.Message) {
			whole[p.Path] = true
		}
	}
	return slices.DeleteFunc(list, func(p Problem) bool {
		for i := range len(p.Path) {
			if p.Path[i] == '.' && whole[p.Path[:i]] {
				return true
			}
		}
		return false
	})
}

func mergeAlternatives(list []Problem) []Problem {
	alternatives := slices.ContainsFunc(list, func(p Problem) bool { return disjunctionRE.MatchString(p.Message) })
	list = slices.DeleteFunc(slices.Clone(list), func(p Problem) bool {
		return disjunctionRE.MatchString(p.Message) && len(list) > 1
	})
	if !alternatives || len(list) < 2 {
		return list
	}
	if i := slices.IndexFunc(list, func(p Problem) bool { return !generalRE.MatchString(p.Message) }); i >= 0 {
		return list[i : i+1]
	}
	// That it is not the default is no reason, where there is another.
	if i := slices.IndexFunc(list, func(p Problem) bool { return strings.HasPrefix(p.Message, "invalid value ") }); i >= 0 {
		return list[i : i+1]
	}
	given, allowed := "", []string{}
	for _, p := range list {
		m := conflictRE.FindStringSubmatch(p.Message)
		if m == nil || given != "" && m[2] != given {
			return list
		}
		given = m[2]
		if !slices.Contains(allowed, m[1]) {
			allowed = append(allowed, m[1])
		}
	}
	one := list[0]
	one.Message = fmt.Sprintf("%s is none of %s", given, strings.Join(allowed, ", "))
	return []Problem{one}
}

// joinPath writes a path as CUE does. Selectors that are no identifiers come
// quoted from CUE, and are quoted here where they are names of ours.
func joinPath(path []string) string {
	quoted := make([]string, len(path))
	for i, s := range path {
		quoted[i] = s
		if !plainRE.MatchString(s) {
			quoted[i] = fmt.Sprintf("%q", s)
		}
	}
	return strings.Join(quoted, ".")
}

// plainRE is what needs no quotes: an identifier, a list index, and what is
// quoted already.
var plainRE = regexp.MustCompile(`^([#_$A-Za-z][#_$A-Za-z0-9]*|[0-9]+|".*")$`)
