package leaf

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// Declare makes the twins those of a revision: properties.desired and tags of
// the device, properties.desired of each module. It admits exactly these modules
// to the leaf: those that are no longer declared lose their connections and
// their identity, while the versions of their twins are kept for when they
// return. What changed reaches its module once: as its file, as a message, and
// with the signal that the definition names. What somebody on the device set over
// it stays over it; see Override. Declaring the same again does nothing. It
// implements reconciler.Reporter.
func (l *Leaf) Declare(_ context.Context, desired schema.Desired) error {
	l.declaring.Lock()
	defer l.declaring.Unlock()
	if desired.Device != l.config.Device {
		return fmt.Errorf("declare: it is the definition of device %q, and this is %q", desired.Device, l.config.Device)
	}
	if err := twin.CheckTags(desired.Tags); err != nil {
		return fmt.Errorf("declare: tags: %w", err)
	}
	schemas := map[string]*schema.ReportedSchema{"": nil}
	keep := map[string]bool{}
	for _, m := range desired.Modules {
		compiled, err := compileReported(m.Twin.Reported)
		if err != nil {
			return fmt.Errorf("declare: twin of module %s: %w", m.Name, err)
		}
		schemas[m.Name], keep[m.Name] = compiled, true
	}
	news, events, err := l.store.declare(desired)
	if err != nil {
		return fmt.Errorf("declare: %w", err)
	}
	for _, e := range events {
		l.overrides.note(e)
	}
	l.admitAll(desired.Modules)
	l.doors.closeModules(keep)
	errServe := l.twins.serve(schemas)
	errForget := forget(l.config.RunDir, keep)
	errTell := l.tell(news)
	if err := errors.Join(errServe, errForget, errTell); err != nil {
		return fmt.Errorf("declare: %w", err)
	}
	return nil
}

// declare commits what a revision says, and returns the entries whose desired
// changed, and what became of overrides.
func (s *store) declare(desired schema.Desired) (news []entry, events []OverrideEvent, err error) {
	errs := s.commit(func(get func(string) (entry, bool)) ([]entry, error) {
		var changed []entry
		now := time.Now()
		ended := func(e entry, why string) {
			events = append(events, OverrideEvent{At: now, Module: e.Document.Module, What: why, Override: *e.override()})
		}
		add := func(module string, spec schema.TwinSpec, tags map[string]any) error {
			was, ok := get(module)
			d := declaration{spec, tags, desired.Revision.Commit, now}
			e, why, err := d.apply(was, ok)
			if err != nil {
				return fmt.Errorf("twin of %s: %w", schema.Address(desired.Device, module), err)
			}
			if why != "" {
				ended(was, why)
			}
			isNew := e.Document.Properties.Desired.Version != was.Document.Properties.Desired.Version
			if isNew {
				news = append(news, e)
			}
			if isNew || !ok || !e.declaredAs(was) {
				changed = append(changed, e)
			}
			return nil
		}
		if err := add("", desired.Twin, desired.Tags); err != nil {
			return nil, err
		}
		keep := map[string]bool{}
		for _, m := range desired.Modules {
			keep[m.Name] = true
			if err := add(m.Name, m.Twin, nil); err != nil {
				return nil, err
			}
		}
		for _, module := range s.declared() {
			if !keep[module] {
				e, _ := get(module)
				if e.override() != nil {
					ended(e, OverrideRemoved)
				}
				changed = append(changed, tombstone(e))
			}
		}
		return changed, nil
	})
	if errs[0] != nil {
		return nil, nil, errs[0]
	}
	return news, events, nil
}

// declaration is what a revision says of one twin.
type declaration struct {
	spec   schema.TwinSpec
	tags   map[string]any
	commit string
	now    time.Time
}

// apply makes the entry of a twin, which rises in version if desired changed;
// tags count as part of it, since they have no version of their own. ended is why
// an override ended, one of the Override constants; empty when none did.
func (d declaration) apply(was entry, ok bool) (e entry, ended string, err error) {
	e = was
	e.Reported, e.Signal, e.Fixed = d.spec.Reported, d.spec.Signal, d.spec.Fixed
	base, err := settled(d.spec.Desired, twin.MaxSection)
	if err != nil {
		return entry{}, "", err
	}
	tags, err := settled(d.tags, twin.MaxTags)
	if err != nil {
		return entry{}, "", err
	}
	e, ended, err = e.rebased(base, d.now)
	if err != nil {
		return entry{}, "", err
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
	p.Desired.Source, e.Document.Tags = d.commit, tags
	if returned {
		e.Document.Removed = false
		p.Reported.Version++
	}
	return e, ended, nil
}

// rebased is the entry with desired as Git says it now, below the override if it
// has one and may go on to have it; ended is why it may not.
func (e entry) rebased(base map[string]any, now time.Time) (_ entry, ended string, err error) {
	o := e.override()
	switch {
	case o == nil:
	case e.Fixed:
		ended = OverrideForbidden
	case says(base, *o):
		ended = OverrideAdopted
	default:
		over, err := e.laid(base, o, e.Countdown, now)
		if err == nil {
			return over, "", nil
		}
		ended = OverrideUnfit
	}
	e, err = e.laid(base, nil, countdown{}, now)
	return e, ended, err
}

// declaredAs reports whether two entries are of one definition.
func (e entry) declaredAs(was entry) bool {
	return e.Reported == was.Reported && e.Signal == was.Signal && e.Fixed == was.Fixed && reflect.DeepEqual(e.Base, was.Base)
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

// tombstone keeps the versions of a twin. They rise, so that the hub hears of it.
func tombstone(e entry) entry {
	d := twin.Document{Device: e.Document.Device, Module: e.Document.Module, Removed: true}
	d.Properties.Desired.Version = e.Document.Properties.Desired.Version + 1
	d.Properties.Reported.Version = e.Document.Properties.Reported.Version + 1
	return entry{Document: d}
}
