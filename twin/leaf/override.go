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
	news, replaced, err := l.ledger.Override(module, o, l.config.clock.Start(lasts), now)
	if err != nil {
		return nil, fmt.Errorf("override %s: %w", l.address(module), err)
	}
	if replaced != nil {
		l.overrides.note(OverrideEvent{At: now, Module: module, What: OverrideReplaced, By: o.By, Override: *replaced})
	}
	l.overrides.note(OverrideEvent{At: now, Module: module, What: OverrideSet, By: o.By, Override: *news.Properties.Desired.Override})
	return replaced, l.tell([]twin.Document{news})
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
	for _, d := range l.ledger.Documents() {
		e, _ := l.ledger.Get(d.Module)
		if o := e.Override(); o != nil {
			left, ends := l.config.clock.Left(e.Countdown)
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
	news, ended, err := l.ledger.Clear(module, now)
	if err != nil {
		return twin.Override{}, err
	}
	l.overrides.note(OverrideEvent{At: now, Module: module, What: why, By: by, Override: ended})
	return ended, l.tell([]twin.Document{news})
}

func (l *Leaf) address(module string) string { return schema.Address(l.config.Device, module) }
