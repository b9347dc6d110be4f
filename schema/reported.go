package schema

import (
	"cmp"
	"encoding/json"
	"fmt"
	"sync"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/parser"
	cuejson "cuelang.org/go/encoding/json"
)

const (
	// MaxReportedSource bounds the CUE source of one schema of reported.
	MaxReportedSource = 32 << 10
	// maxReportedWork bounds schema steps times document values of one check:
	// the time of a check, about a microsecond each.
	maxReportedWork = 500_000
	// maxNewNames bounds the field names, in bytes, that documents bring beyond
	// those in the schema: CUE keeps every name that it ever saw, for as long as
	// the process lives (internal/core/runtime/index.go, v0.17.1).
	maxNewNames = 256 << 10
	// perName is what CUE keeps for a name beside it.
	perName = 64
)

// ReportedSchema decides whether a reported document is acceptable. It may be
// used by several goroutines.
type ReportedSchema struct {
	cost int // steps of checking one value, at most; 0 accepts all

	mu    sync.Mutex      // CUE values are not for concurrent use
	value cue.Value       // #reported
	names map[string]bool // field names that CUE knows by now
	room  int             // bytes left for others
}

// CompileReported makes a checker of TwinSpec.Reported. The source describes
// one object, which is closed unless it says "...". It must be cheap to check:
// see checkCheap. An empty source accepts all.
func CompileReported(source string) (*ReportedSchema, error) {
	if len(source) > MaxReportedSource {
		return nil, invalid("schema of reported: %d bytes of CUE: at most %d", len(source), MaxReportedSource)
	}
	if source == "" {
		return &ReportedSchema{}, nil
	}
	f, err := parser.ParseFile("reported.cue", source)
	if err != nil {
		return nil, reportedError(err)
	}
	cost, err := checkCheap(f)
	if err != nil {
		return nil, err
	}
	body := 0
	for _, decl := range f.Decls {
		if imports, ok := decl.(*ast.ImportDecl); ok {
			body = imports.End().Offset()
		}
	}
	v, err := compileReported(source[:body] + "\n#reported: {\n" + source[body:] + "\n}\n")
	if err != nil {
		return nil, err
	}
	return &ReportedSchema{cost: cost, value: v, names: labels(f), room: maxNewNames}, nil
}

func compileReported(source string) (v cue.Value, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = invalid("schema of reported: the evaluation of CUE panicked, which is a fault of CUE: %v", r)
		}
	}()
	file := cuecontext.New().CompileString(source)
	v = file.LookupPath(cue.ParsePath("#reported"))
	if err := cmp.Or(file.Err(), v.Err()); err != nil {
		return cue.Value{}, reportedError(err)
	}
	if v.IncompleteKind() != cue.StructKind {
		return cue.Value{}, invalid("schema of reported: describes a %v, and what is reported is an object", v.IncompleteKind())
	}
	return v, nil
}

// labels are the field names that are written in f.
func labels(f *ast.File) map[string]bool {
	names := map[string]bool{}
	ast.Walk(f, func(n ast.Node) bool {
		if field, ok := n.(*ast.Field); ok {
			if name, _, err := ast.LabelName(field.Label); err == nil {
				names[name] = true
			}
		}
		return true
	}, nil)
	return names
}

// Check returns an *InvalidError with the paths of what the schema does not
// accept in doc, a whole reported document.
func (s *ReportedSchema) Check(doc map[string]any) (err error) {
	if s.cost == 0 {
		return nil
	}
	if work := s.cost * countValues(doc); work > maxReportedWork {
		return invalid("the document is too large for its schema: %d steps, at most %d", work, maxReportedWork)
	}
	if doc == nil {
		doc = map[string]any{}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("check reported: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			err = invalid("the evaluation of CUE panicked, which is a fault of CUE: %v", r)
		}
	}()
	if !s.admit(doc) {
		return invalid("more than %d KiB of different field names since the agent started: use names from the schema, and put what varies into values", maxNewNames>>10)
	}
	x, err := cuejson.Extract("", b)
	if err != nil {
		return reportedError(err)
	}
	u := s.value.Unify(cuecontext.New().BuildExpr(x))
	if err := u.Validate(cue.Concrete(true)); err != nil {
		return reportedError(err)
	}
	return nil
}

// admit takes the names in x into account; false where there is no room.
func (s *ReportedSchema) admit(x any) bool {
	switch x := x.(type) {
	case map[string]any:
		for name, v := range x {
			if !s.names[name] {
				if s.room -= len(name) + perName; s.room < 0 {
					s.room = 0
					return false
				}
				s.names[name] = true
			}
			if !s.admit(v) {
				return false
			}
		}
	case []any:
		for _, v := range x {
			if !s.admit(v) {
				return false
			}
		}
	}
	return true
}

func reportedError(err error) error {
	p := &problems{}
	p.addCUE(err)
	return p.err()
}

// countValues counts the values in a JSON document.
func countValues(x any) int {
	n := 1
	switch x := x.(type) {
	case map[string]any:
		for _, v := range x {
			n += countValues(v)
		}
	case []any:
		for _, v := range x {
			n += countValues(v)
		}
	}
	return n
}
