package schema

import (
	"fmt"
	"strings"
)

// InvalidError says that a document is not acceptable: definitions of a fleet
// repository, a configuration, a reported document. It is the author's to
// mend; trying again changes nothing. It survives JSON.
type InvalidError struct {
	Problems []Problem `json:"problems"`       // at least one; sorted by place
	More     int       `json:"more,omitempty"` // how many further ones are left out
}

// Problem is one thing that is wrong, and where.
type Problem struct {
	Position
	Path    string     `json:"path,omitempty"` // the value, as CUE names it: device.modules.insight.image
	Message string     `json:"message"`        // lower case, without the path
	Also    []Position `json:"also,omitempty"` // other places that take part: the other side of a conflict
}

// Position is a place in a file. The zero value is no place.
type Position struct {
	File   string `json:"file,omitempty"` // relative to the repository
	Line   int    `json:"line,omitempty"` // from 1
	Column int    `json:"column,omitempty"`
}

// String is file:line:col, or the file where the line is not known.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// String is one line: file:line:col: path: message (and file:line:col).
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.Position.String() + ": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	for i, at := range p.Also {
		if i == 0 {
			b.WriteString(" (and ")
		} else {
			b.WriteString(", ")
		}
		b.WriteString(at.String())
	}
	if len(p.Also) > 0 {
		b.WriteString(")")
	}
	return b.String()
}

// Error is one problem a line.
func (e *InvalidError) Error() string {
	lines := make([]string, 0, len(e.Problems)+1)
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", e.More))
	}
	return strings.Join(lines, "\n")
}

// invalid is an InvalidError of one problem without a place.
func invalid(format string, args ...any) *InvalidError {
	return &InvalidError{Problems: []Problem{{Message: fmt.Sprintf(format, args...)}}}
}

// invalidFile is an InvalidError about a whole file.
func invalidFile(file, format string, args ...any) *InvalidError {
	e := invalid(format, args...)
	e.Problems[0].File = file
	return e
}
