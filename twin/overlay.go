package twin

import "time"

// Overlay makes desired of what Git says, base, and of what somebody set on the
// device over it; a nil override leaves what Git says. So setting, changing and
// ending an override are one function, and so is a commit that changes base below
// one. s is the section as it stands, with or without an override: its version
// and metadata are gone on from, its values are not looked at otherwise.
//
// The version rises by one if the values change, or the override does (its
// patch, its time, its reason), because whoever holds a version holds all of it.
// Leaves that stay the same keep their metadata, Source stays. The error is an
// *Error; a path below "patch" is the override's, any other that of the values.
// The section is then as it was. Nothing that is given is modified.
func Overlay(s Section, base map[string]any, o *Override, now time.Time) (next Section, changed bool, err error) {
	values := base
	var settled *Override
	if o != nil {
		if err := o.Check(); err != nil {
			return s, false, err
		}
		is := o.settled()
		settled = &is
		checked, e := plain(base)
		if e != nil {
			return s, false, e
		}
		values, _, _ = merger{}.object(checked, nil, is.Patch)
	}
	next, changed, err = Replace(s, values, MaxSection, now)
	if err == nil && !changed {
		if sameOverride(s.Override, settled) {
			return s, false, nil
		}
		next, changed, err = finish(s, orEmpty(s.Values), orEmpty(s.Metadata), true, MaxSection)
	}
	if err != nil {
		return s, false, err
	}
	next.Override = settled
	return next, changed, nil
}
