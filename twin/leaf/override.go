package leaf

import (
	"context"
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// maxOverride bounds how long an override may last that is to end by itself.
const maxOverride = 10 * 365 * 24 * time.Hour

// OverrideState is an override that is in force.
type OverrideState struct {
	Module   string        // empty: the device's own twin
	Override twin.Override // what was set
	Left     time.Duration // until it ends by itself; 0: when somebody ends it
}

// Override lays a merge patch over what Git says of desired of a module, or of
// the device where module is empty (iotedge#645): o names Patch, By and Reason,
// its times are set here. It ends after lasts, of time in which the machine is
// on, whatever its wall clock says; 0: when somebody calls Clear. A boot can make
// it end up to two minutes earlier, never later.
//
// A twin has one override at most: another one replaces it wholly, so that what
// is set is what one person asked for, and that one is returned. A commit that
// changes desired changes it below the override; when Git then says the same as
// the override, or forbids it, or desired would become too large with it, or the
// module goes, the override ends: see Config.Noted.
//
// The error is an *twin.Error, and nothing has changed then: CodeNotFound for a
// module that is not declared, CodeRefused where the definition forbids it, and
// CodeMalformed where Git says the same already.
func (l *Leaf) Override(_ context.Context, module string, o twin.Override, lasts time.Duration) (replaced *twin.Override, err error) {
	l.declaring.Lock()
	defer l.declaring.Unlock()
	now := time.Now()
	o.At, o.Until = now, time.Time{}
	if lasts < 0 || lasts > maxOverride {
		err := &twin.Error{Code: twin.CodeMalformed, Path: "for", Message: fmt.Sprintf("%s is no time that an override lasts: want at most %s", lasts, maxOverride)}
		return nil, fmt.Errorf("override %s: %w", l.address(module), err)
	}
	if lasts > 0 {
		o.Until = now.Add(lasts)
	}
	news, err := l.alter(module, func(e entry) (entry, error) {
		replaced = e.override()
		return e.overridden(o, l.overrides.clock.start(lasts), now)
	})
	if err != nil {
		return nil, fmt.Errorf("override %s: %w", l.address(module), err)
	}
	if replaced != nil {
		l.overrides.note(OverrideEvent{At: now, Module: module, What: OverrideReplaced, By: o.By, Override: *replaced})
	}
	l.overrides.note(OverrideEvent{At: now, Module: module, What: OverrideSet, By: o.By, Override: *news.override()})
	return replaced, l.tell([]entry{news})
}

// Clear ends the override of a module, or of the device where module is empty,
// and returns it. by is who does so. An error is CodeNotFound where there is
// none.
func (l *Leaf) Clear(_ context.Context, module, by string) (twin.Override, error) {
	l.declaring.Lock()
	defer l.declaring.Unlock()
	ended, err := l.endOverride(module, OverrideCleared, by)
	if err != nil {
		return twin.Override{}, fmt.Errorf("end the override of %s: %w", l.address(module), err)
	}
	return ended, nil
}

// Overrides lists those that are in force, the device's own first, then the
// modules' by name.
func (l *Leaf) Overrides() []OverrideState {
	var states []OverrideState
	for _, d := range l.store.documents() {
		e, _ := l.store.get(d.Module)
		if o := e.override(); o != nil {
			left, ends := l.overrides.clock.left(e.Countdown)
			if ends {
				left = max(left, 1) // it has ended, and is about to go
			}
			states = append(states, OverrideState{Module: d.Module, Override: *o, Left: left})
		}
	}
	return states
}

// endOverride ends an override, for a reason that is one of the Override constants. The
// caller holds l.declaring.
func (l *Leaf) endOverride(module, why, by string) (ended twin.Override, err error) {
	now := time.Now()
	news, err := l.alter(module, func(e entry) (entry, error) {
		o := e.override()
		if o == nil {
			return e, &twin.Error{Code: twin.CodeNotFound, Message: "there is no override"}
		}
		ended = *o
		return e.laid(e.base(), nil, countdown{}, now)
	})
	if err != nil {
		return twin.Override{}, err
	}
	l.overrides.note(OverrideEvent{At: now, Module: module, What: why, By: by, Override: ended})
	return ended, l.tell([]entry{news})
}

// alter commits a change of one twin that is declared.
func (l *Leaf) alter(module string, f func(entry) (entry, error)) (news entry, err error) {
	err = l.store.commit(func(get func(string) (entry, bool)) ([]entry, error) {
		e, ok := get(module)
		if !ok || e.Document.Removed {
			return nil, &twin.Error{Code: twin.CodeNotFound, Message: "no such module is declared"}
		}
		var err error
		news, err = f(e)
		return []entry{news}, err
	})[0]
	return news, err
}

func (l *Leaf) address(module string) string { return schema.Address(l.config.Device, module) }

// override is the override that is in force; nil for none.
func (e entry) override() *twin.Override { return e.Document.Properties.Desired.Override }

// base is what Git says of desired.
func (e entry) base() map[string]any {
	if e.override() != nil {
		return e.Base
	}
	return e.Document.Properties.Desired.Values
}

// overridden is the entry with a new override.
func (e entry) overridden(o twin.Override, c countdown, now time.Time) (entry, error) {
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
func (e entry) laid(base map[string]any, o *twin.Override, c countdown, now time.Time) (entry, error) {
	next, _, err := twin.Overlay(e.Document.Properties.Desired, base, o, now)
	if err != nil {
		return e, err
	}
	e.Document.Properties.Desired = next
	e.Base, e.Countdown = nil, countdown{}
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
