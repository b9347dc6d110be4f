package twin

import (
	"errors"
	"time"
)

// Merge applies a JSON merge patch (RFC 7396): a member that is null is
// deleted, an object is merged, anything else replaces. What the section held
// is not modified. changed is false, and the section as it was, when the patch
// says nothing new; otherwise the version has risen by one and the leaves that
// changed say when. The error is an *Error with the path of the member that is
// the reason; the section is then as it was.
func Merge(s Section, patch map[string]any, now time.Time) (next Section, changed bool, err error) {
	return s, false, errors.New("not built")
}

// Replace makes values the whole section, under the rules of Merge. Members
// that are null are left out.
func Replace(s Section, values map[string]any, now time.Time) (next Section, changed bool, err error) {
	return s, false, errors.New("not built")
}
