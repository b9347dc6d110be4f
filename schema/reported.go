package schema

import (
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
	// renewAfter bounds what a context remembers: every field name it ever saw.
	renewAfter = 1 << 20
)

// ReportedSchema decides whether a reported document is acceptable. It may be
// used by several goroutines.
type ReportedSchema struct {
	source string // as a CUE file with the definition #reported
	cost   int    // steps of checking one value, at most

	mu    sync.Mutex // a CUE context is not for concurrent use
	value cue.Value  // #reported
	seen  int        // bytes checked in its context
}

// CompileReported makes a checker of TwinSpec.Reported. The source describes
// one object, which is closed unless it says "...". It must be cheap to check:
// see checkCheap. An empty source accepts all.
func CompileReported(source string) (*ReportedSchema, error) {
	if len(source) > MaxReportedSource {
		return nil, invalid("schema of reported: %d bytes of CUE: at most %d", len(source), MaxReportedSource)
	}
	if source == "" {
		source = "..."
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
	s := &ReportedSchema{source: source[:body] + "\n#reported: {\n" + source[body:] + "\n}\n", cost: cost}
	if err := s.compile(); err != nil {
		return nil, err
	}
	return s, nil
}

// compile makes a fresh context.
func (s *ReportedSchema) compile() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = invalid("schema of reported: the evaluation of CUE panicked, which is a fault of CUE: %v", r)
		}
	}()
	file := cuecontext.New().CompileString(s.source)
	v := file.LookupPath(cue.ParsePath("#reported"))
	if err := file.Err(); err != nil {
		return reportedError(err)
	}
	if err := v.Err(); err != nil {
		return reportedError(err)
	}
	if v.IncompleteKind() != cue.StructKind {
		return invalid("schema of reported: describes a %v, and what is reported is an object", v.IncompleteKind())
	}
	s.value, s.seen = v, 0
	return nil
}

// Check returns an *InvalidError with the paths of what the schema does not
// accept in doc, a whole reported document.
func (s *ReportedSchema) Check(doc map[string]any) (err error) {
	b, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("check reported: %w", err)
	}
	if work := s.cost * countValues(doc); work > maxReportedWork {
		return invalid("the document is too large for its schema: %d steps, at most %d", work, maxReportedWork)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			err = invalid("the evaluation of CUE panicked, which is a fault of CUE: %v", r)
		}
	}()
	if s.seen += len(b); s.seen > renewAfter {
		if err := s.compile(); err != nil {
			return err
		}
	}
	x, err := cuejson.Extract("", b)
	if err != nil {
		return reportedError(err)
	}
	u := s.value.Unify(s.value.Context().BuildExpr(x))
	if err := u.Validate(cue.Concrete(true)); err != nil {
		return reportedError(err)
	}
	return nil
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
