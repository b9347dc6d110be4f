package twin

import (
	"fmt"
	"reflect"
	"time"
)

// Merge applies a JSON merge patch (RFC 7396): a member that is null is
// deleted, an object is merged, anything else replaces. What the section held
// is not modified. changed is false, and the section as it was, when the patch
// says nothing new; otherwise the version has risen by one and the leaves that
// changed say when. The error is an *Error with the path of the member that is
// the reason; the section is then as it was.
func Merge(s Section, patch map[string]any, now time.Time) (next Section, changed bool, err error) {
	checked, e := plain(patch)
	if e != nil {
		return s, false, e
	}
	m := newMerger(s.Version+1, now)
	values, metadata, changed := m.object(s.Values, s.Metadata, checked)
	return finish(s, values, metadata, changed, MaxSection)
}

// Replace makes values the whole section, under the rules of Merge but for the
// bound of its size, which is most bytes. Members that are null are left out.
// Leaves that stay the same keep their metadata.
func Replace(s Section, values map[string]any, most int, now time.Time) (next Section, changed bool, err error) {
	checked, e := plain(values)
	if e != nil {
		return s, false, e
	}
	m := newMerger(s.Version+1, now)
	merged, metadata, changed := m.object(s.Values, s.Metadata, without(s.Values, checked))
	return finish(s, merged, metadata, changed, most)
}

// without turns wanted into the merge patch that leads from present to it.
func without(present, wanted map[string]any) map[string]any {
	for key, was := range present {
		is, ok := wanted[key]
		if !ok {
			wanted[key] = nil
			continue
		}
		wasObject, _ := was.(map[string]any)
		if isObject, ok := is.(map[string]any); ok {
			without(wasObject, isObject)
		}
	}
	return wanted
}

func finish(s Section, values, metadata map[string]any, changed bool, most int) (Section, bool, error) {
	if !changed {
		return s, false, nil
	}
	if err := checkSize("section", values, most); err != nil {
		return s, false, err
	}
	if s.Version >= maxVersion {
		return s, false, &Error{Code: CodeFailed, Message: fmt.Sprintf("version %d is the last there is", s.Version)}
	}
	return Section{Values: values, Version: s.Version + 1, Metadata: metadata, Source: s.Source, Override: s.Override}, true, nil
}

// merger carries what every leaf that changes is stamped with.
type merger struct{ stamp map[string]any }

func newMerger(version uint64, now time.Time) merger {
	return merger{map[string]any{
		"$lastUpdated":        stampOf(now),
		"$lastUpdatedVersion": float64(version),
	}}
}

// stampOf is how times are written in a twin.
func stampOf(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// object merges patch into values. It copies what it changes and shares the
// rest.
func (m merger) object(values, metadata, patch map[string]any) (map[string]any, map[string]any, bool) {
	var out, meta map[string]any
	edit := func() {
		if out == nil {
			out, meta = copied(values, len(patch)), copied(metadata, len(patch))
		}
	}
	for key, p := range patch {
		was, exists := values[key]
		switch p := p.(type) {
		case nil:
			if exists {
				edit()
				delete(out, key)
				delete(meta, key)
			}
		case map[string]any:
			wasObject, isObject := was.(map[string]any)
			var wasMeta map[string]any
			if isObject {
				wasMeta, _ = metadata[key].(map[string]any)
			}
			merged, mergedMeta, changed := m.object(wasObject, wasMeta, p)
			if changed || !isObject {
				edit()
				out[key], meta[key] = merged, mergedMeta
			}
		default:
			if !exists || !reflect.DeepEqual(was, p) {
				edit()
				out[key], meta[key] = p, m.stamp
			}
		}
	}
	if out == nil {
		if values == nil {
			return map[string]any{}, map[string]any{}, false
		}
		return values, metadata, false
	}
	return out, meta, true
}

func copied(m map[string]any, more int) map[string]any {
	out := make(map[string]any, len(m)+more)
	for k, v := range m {
		out[k] = v
	}
	return out
}
