package ledger

import (
	"reflect"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// Entry is what the journal says of one twin. Its values are never modified,
// only replaced.
type Entry struct {
	Reported  string         // CUE source that reported must satisfy; empty accepts all
	Signal    string         // sent to the module's process when its desired.json changed; empty: none
	Fixed     bool           // nobody may override desired on the device
	Base      map[string]any // what Git says of desired, below an override; nil where there is none
	Countdown Countdown      // of the override
	Document  twin.Document  // with no values when removed
}

// Override is the override that is in force; nil for none.
func (e Entry) Override() *twin.Override { return e.Document.Properties.Desired.Override }

// base is what Git says of desired.
func (e Entry) base() map[string]any {
	if e.Override() != nil {
		return e.Base
	}
	return e.Document.Properties.Desired.Values
}

// overridden is the entry with a new override.
func (e Entry) overridden(o twin.Override, c Countdown, now time.Time) (Entry, error) {
	if e.Fixed {
		return e, &twin.Error{Code: twin.CodeRefused, Message: "the definition forbids it (twin: fixed: true)"}
	}
	if err := o.Check(); err != nil {
		return e, err
	}
	base := e.base()
	if says(base, o) {
		return e, &twin.Error{Code: twin.CodeMalformed, Path: "patch", Message: "Git says the same already"}
	}
	return e.laid(base, &o, c, now)
}

// laid is the entry with desired made of what Git says and of an override over
// it, nil for none.
func (e Entry) laid(base map[string]any, o *twin.Override, c Countdown, now time.Time) (Entry, error) {
	next, _, err := twin.Overlay(e.Document.Properties.Desired, base, o, now)
	if err != nil {
		return e, err
	}
	e.Document.Properties.Desired = next
	e.Base, e.Countdown = nil, Countdown{}
	if o != nil {
		if e.Base = base; base == nil {
			e.Base = map[string]any{}
		}
		e.Countdown = c
	}
	return e, nil
}

// says reports whether what Git says is already what an override wants.
func says(base map[string]any, o twin.Override) bool {
	_, changed, err := twin.Merge(twin.Section{Values: base}, o.Patch, time.Time{})
	return err == nil && !changed
}

// declaredAs reports whether two entries are of one definition.
func (e Entry) declaredAs(was Entry) bool {
	return e.Reported == was.Reported && e.Signal == was.Signal && e.Fixed == was.Fixed && reflect.DeepEqual(e.Base, was.Base)
}

// tombstone keeps the versions of a twin. They rise, so that the hub hears of it.
func tombstone(e Entry) Entry {
	d := twin.Document{Device: e.Document.Device, Module: e.Document.Module, Removed: true}
	d.Properties.Desired.Version = e.Document.Properties.Desired.Version + 1
	d.Properties.Reported.Version = e.Document.Properties.Reported.Version + 1
	return Entry{Document: d}
}
