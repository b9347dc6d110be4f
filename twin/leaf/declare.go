package leaf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// maxFloor bounds versions that Raise sets: far above any that come about, and
// far below the last.
const maxFloor = 1 << 52

// Declare makes the twins those of a revision: properties.desired and tags of
// the device, properties.desired of each module. It admits exactly these modules
// to the leaf: those that are no longer declared lose their connections and
// their identity, while the versions of their twins are kept for when they
// return. What changed is published to its module, once. Declaring the same
// again does nothing. It implements reconciler.Reporter.
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
	names := make([]string, 0, len(desired.Modules))
	for _, m := range desired.Modules {
		compiled, err := compileReported(m.Twin.Reported)
		if err != nil {
			return fmt.Errorf("declare: twin of module %s: %w", m.Name, err)
		}
		schemas[m.Name], keep[m.Name] = compiled, true
		names = append(names, m.Name)
	}
	changed, err := l.store.declare(desired)
	if err != nil {
		return fmt.Errorf("declare: %w", err)
	}
	l.admission.declare(names, l.warn)
	l.doors.closeModules(keep)
	errServe := l.twins.serve(schemas)
	errForget := forget(l.config.RunDir, keep)
	errPublish := l.twins.publish(changed)
	if err := errors.Join(errServe, errForget, errPublish); err != nil {
		return fmt.Errorf("declare: %w", err)
	}
	return nil
}

// declare commits what a revision says, and returns the entries whose desired
// changed.
func (s *store) declare(desired schema.Desired) ([]entry, error) {
	var news []entry
	errs := s.commit(func(get func(string) (entry, bool)) ([]entry, error) {
		var changed []entry
		now, commit := time.Now(), desired.Revision.Commit
		add := func(module string, spec schema.TwinSpec, tags map[string]any) error {
			was, ok := get(module)
			e, isNew, err := declareOne(was, ok, spec, tags, commit, now)
			if err != nil {
				if module == "" {
					return fmt.Errorf("twin of the device: %w", err)
				}
				return fmt.Errorf("twin of module %s: %w", module, err)
			}
			if isNew {
				news = append(news, e)
			}
			if isNew || !ok || e.Reported != was.Reported {
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
				changed = append(changed, tombstone(e))
			}
		}
		return changed, nil
	})
	return news, errs[0]
}

// declareOne makes the entry of a twin that a revision declares. isNew says that
// desired changed; tags count as part of it, since they have no version of
// their own.
func declareOne(was entry, ok bool, spec schema.TwinSpec, tags map[string]any, commit string, now time.Time) (e entry, isNew bool, err error) {
	e = was
	e.Reported = spec.Reported
	p := &e.Document.Properties
	desired, changed, err := twin.Replace(p.Desired, spec.Desired, twin.MaxSection, now)
	if err != nil {
		return entry{}, false, err
	}
	tags, err = settled(tags)
	if err != nil {
		return entry{}, false, err
	}
	isNew = changed || !ok || was.Removed || !reflect.DeepEqual(tags, was.Document.Tags)
	if !isNew {
		return e, false, nil
	}
	if !changed {
		desired.Version++
	}
	desired.Source = commit
	p.Desired, e.Document.Tags = desired, tags
	if !ok || was.Removed {
		e.Removed = false
		p.Reported.Version++
	}
	return e, true, nil
}

// settled returns tags in the types that they have when they are read back, so
// that they can be compared; nil for none.
func settled(tags map[string]any) (map[string]any, error) {
	s, _, err := twin.Replace(twin.Section{}, tags, twin.MaxTags, time.Time{})
	if err != nil || len(s.Values) == 0 {
		return nil, err
	}
	return s.Values, nil
}

// tombstone keeps the versions of a twin.
func tombstone(e entry) entry {
	d := twin.Document{Device: e.Document.Device, Module: e.Document.Module}
	d.Properties.Desired.Version = e.Document.Properties.Desired.Version
	d.Properties.Reported.Version = e.Document.Properties.Reported.Version
	return entry{Removed: true, Document: d}
}

// publish tells modules that desired changed.
func (t *twins) publish(changed []entry) error {
	for _, e := range changed {
		body, err := json.Marshal(e.Document.Properties.Desired)
		if err == nil {
			err = t.conn.Publish(twin.Prefix(t.device, e.Document.Module)+".twin.desired", body)
		}
		if err != nil {
			return fmt.Errorf("publish desired: %w", err)
		}
	}
	return t.conn.Flush()
}

// Documents returns all twins of the device, its own first, then the modules'
// by name. The values are shared: read them, do not modify them.
func (l *Leaf) Documents() []twin.Document { return l.store.documents() }

// Changed returns a channel that holds one value when a document changed since
// the last receive. It has one reader, the hub uplink.
func (l *Leaf) Changed() <-chan struct{} { return l.store.changed }

// Raise lifts the versions of a twin above those that the hub holds, where they
// are below, so that a device that lost its state goes on above and the hub
// takes what it sends. module is empty for the device.
func (l *Leaf) Raise(_ context.Context, module string, desired, reported uint64) error {
	if desired > maxFloor || reported > maxFloor {
		return fmt.Errorf("raise versions of %s: %d and %d are not versions that a twin can have reached", schema.Address(l.config.Device, module), desired, reported)
	}
	if module != "" {
		if err := schema.CheckName(module); err != nil {
			return fmt.Errorf("raise versions: %w", err)
		}
	}
	var news []entry
	errs := l.store.commit(func(get func(string) (entry, bool)) ([]entry, error) {
		e, ok := get(module)
		if !ok {
			e.Removed = module != "" // its versions wait for when it is declared
		}
		p := &e.Document.Properties
		raised := raise(&p.Desired.Version, desired)
		if raised && !e.Removed {
			news = append(news, e)
		}
		if !raise(&p.Reported.Version, reported) && !raised {
			return nil, nil
		}
		return []entry{e}, nil
	})
	if errs[0] != nil {
		return fmt.Errorf("raise versions: %w", errs[0])
	}
	return l.twins.publish(news)
}

func raise(version *uint64, floor uint64) bool {
	if *version >= floor {
		return false
	}
	*version = floor + 1
	return true
}
