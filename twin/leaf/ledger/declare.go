package ledger

import (
	"fmt"
	"reflect"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// Why a declaration ends an override.
const (
	Adopted   = "adopted"   // Git says the same now
	Forbidden = "forbidden" // the definition does not allow it any more
	Unfit     = "unfit"     // over what Git says now, desired would be beyond a limit
	Removed   = "removed"   // the module is no longer declared
)

// Ended is an override that a declaration ended.
type Ended struct {
	Module   string        // empty: the device's own twin
	Why      string        // one of the constants
	Override twin.Override // that was in force
}

// declaration is one call of Declare.
type declaration struct {
	desired schema.Desired
	now     time.Time
	get     func(module string) (Entry, bool)
	changed []Entry // to be written
	news    []twin.Document
	ended   []Ended
}

// Declare makes the twins those of a revision: desired and tags of the device,
// desired of each module. Modules that it does not name are removed, and keep
// their versions. It returns the twins whose desired changed, and the overrides
// that ended.
func (l *Ledger) Declare(desired schema.Desired, now time.Time) (news []twin.Document, ended []Ended, err error) {
	d := declaration{desired: desired, now: now}
	err = l.commit(func(get func(string) (Entry, bool)) ([]Entry, error) {
		d.get = get
		if err := d.add("", desired.Twin, desired.Tags); err != nil {
			return nil, err
		}
		keep := map[string]bool{}
		for _, m := range desired.Modules {
			keep[m.Name] = true
			if err := d.add(m.Name, m.Twin, nil); err != nil {
				return nil, err
			}
		}
		for _, module := range l.Declared() {
			if !keep[module] {
				e, _ := get(module)
				d.end(e, Removed)
				d.changed = append(d.changed, tombstone(e))
			}
		}
		return d.changed, nil
	})
	if err != nil {
		return nil, nil, err
	}
	return d.news, d.ended, nil
}

// end notes that the override of e ends, if it has one.
func (d *declaration) end(e Entry, why string) {
	if o := e.Override(); o != nil && why != "" {
		d.ended = append(d.ended, Ended{e.Document.Module, why, *o})
	}
}

// add declares one twin.
func (d *declaration) add(module string, spec schema.TwinSpec, tags map[string]any) error {
	was, ok := d.get(module)
	e, why, err := d.apply(was, ok, spec, tags)
	if err != nil {
		return fmt.Errorf("twin of %s: %w", schema.Address(d.desired.Device, module), err)
	}
	d.end(was, why)
	isNew := e.Document.Properties.Desired.Version != was.Document.Properties.Desired.Version
	if isNew {
		d.news = append(d.news, e.Document)
	}
	if isNew || !ok || !e.declaredAs(was) {
		d.changed = append(d.changed, e)
	}
	return nil
}

// apply makes the entry of a twin, which rises in version if desired changed;
// tags count as part of it, since they have no version of their own. ended is why
// an override ended; empty when none did.
func (d *declaration) apply(was Entry, ok bool, spec schema.TwinSpec, values map[string]any) (e Entry, ended string, err error) {
	e = was
	e.Reported, e.Signal, e.Fixed = spec.Reported, spec.Signal, spec.Fixed
	base, err := settled(spec.Desired, twin.MaxSection)
	if err != nil {
		return Entry{}, "", err
	}
	tags, err := settled(values, twin.MaxTags)
	if err != nil {
		return Entry{}, "", err
	}
	e, ended, err = e.rebased(base, d.now)
	if err != nil {
		return Entry{}, "", err
	}
	p := &e.Document.Properties
	returned := !ok || was.Document.Removed
	changed := p.Desired.Version != was.Document.Properties.Desired.Version
	if !changed && !returned && reflect.DeepEqual(tags, was.Document.Tags) {
		return e, ended, nil
	}
	if !changed {
		p.Desired.Version++
	}
	p.Desired.Source, e.Document.Tags = d.desired.Revision.Commit, tags
	if returned {
		e.Document.Removed = false
		p.Reported.Version++
	}
	return e, ended, nil
}

// rebased is the entry with desired as Git says it now, below the override if it
// has one and may go on to have it; ended is why it may not.
func (e Entry) rebased(base map[string]any, now time.Time) (_ Entry, ended string, err error) {
	o := e.Override()
	switch {
	case o == nil:
	case e.Fixed:
		ended = Forbidden
	case says(base, *o):
		ended = Adopted
	default:
		over, err := e.laid(base, o, e.Countdown, now)
		if err == nil {
			return over, "", nil
		}
		ended = Unfit
	}
	e, err = e.laid(base, nil, Countdown{}, now)
	return e, ended, err
}

// settled returns values in the types that they have when they are read back, so
// that they can be compared; nil for none.
func settled(values map[string]any, most int) (map[string]any, error) {
	s, _, err := twin.Replace(twin.Section{}, values, most, time.Time{})
	if err != nil || len(s.Values) == 0 {
		return nil, err
	}
	return s.Values, nil
}
