package schema

// RefusedError says that a revision was looked at and is not accepted. What ran
// before goes on.
type RefusedError struct {
	Revision Revision
	Phase    string // the Phase constant of the step that refused
	Module   string // where one module is the reason
	Err      error  // why; carries file:line:col where there is one
}

func (e *RefusedError) Error() string {
	s := "revision " + e.Revision.Short()
	if e.Module != "" {
		s += ", module " + e.Module
	}
	return s + ": " + e.Err.Error()
}

func (e *RefusedError) Unwrap() error { return e.Err }
