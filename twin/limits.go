package twin

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The limits of a twin are Azure IoT Hub's. Sizes are of the compact JSON
// without the $ members.
const (
	MaxSection = 32 << 10 // bytes of desired, and of reported
	MaxTags    = 8 << 10  // bytes of tags
	MaxDepth   = 10       // objects and arrays within each other, below the section
	MaxKey     = 512      // bytes of a key

	// MaxPatch bounds a merge patch on the wire: a whole section, and as much
	// again to delete what was there.
	MaxPatch = 2 * MaxSection

	// MaxDocument bounds a whole document on the wire: both sections with their
	// metadata. It stays below NATS's default max_payload of 1 MiB, with room for
	// the headers under which the hub stores it.
	MaxDocument = 1<<20 - 16<<10

	// maxVersion is the largest integer that every JSON reader can hold.
	maxVersion = 1<<53 - 1
)

// ReadPatch reads a merge patch from the wire: one JSON object of at most
// MaxPatch bytes, in UTF-8. The error is an *Error.
func ReadPatch(data []byte) (map[string]any, error) {
	if len(data) > MaxPatch {
		return nil, &Error{Code: CodeTooLarge, Message: fmt.Sprintf("patch has %d bytes, and may have %d", len(data), MaxPatch)}
	}
	if !utf8.Valid(data) {
		return nil, &Error{Code: CodeMalformed, Message: "patch is not UTF-8"}
	}
	var raw any
	if err := decode(data, &raw); err != nil {
		return nil, &Error{Code: CodeMalformed, Message: "patch is not JSON: " + err.Error()}
	}
	object, ok := raw.(map[string]any)
	if !ok {
		return nil, &Error{Code: CodeMalformed, Message: "patch is not a JSON object"}
	}
	return object, nil
}

// CheckTags reports why v cannot be the tags of a device. The error is an
// *Error.
func CheckTags(v map[string]any) error {
	tags, e := plain(v)
	if e != nil {
		return e
	}
	return checkSize("tags", tags, MaxTags)
}

// checkSize reports an object whose compact JSON is longer than most.
func checkSize(what string, object map[string]any, most int) error {
	if n := len(appendValue(nil, object)); n > most {
		return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("%s would have %d bytes, and may have %d", what, n, most)}
	}
	return nil
}

// plain returns a copy of an object in the types that JSON decodes to, checked
// against the rules of keys and depth.
func plain(object map[string]any) (map[string]any, *Error) {
	v, err := plainValue(object, 0)
	if err != nil {
		return nil, err
	}
	if v == nil { // a nil map
		return map[string]any{}, nil
	}
	return v.(map[string]any), nil
}

func plainValue(v any, depth int) (any, *Error) {
	switch v := v.(type) {
	case nil, bool:
		return v, nil
	case string:
		if !utf8.ValidString(v) {
			return nil, &Error{Code: CodeMalformed, Message: "string is not UTF-8"}
		}
		return v, nil
	case float64:
		return number(strconv.FormatFloat(v, 'g', -1, 64))
	case json.Number:
		return number(string(v))
	case int:
		return number(strconv.Itoa(v))
	case map[string]any:
		if depth > MaxDepth {
			return nil, tooDeep()
		}
		out := make(map[string]any, len(v))
		for key, member := range v {
			if err := checkKey(key); err != nil {
				return nil, err
			}
			p, err := plainValue(member, depth+1)
			if err != nil {
				return nil, err.below(key)
			}
			out[key] = p
		}
		return out, nil
	case []any:
		if depth > MaxDepth {
			return nil, tooDeep()
		}
		out := make([]any, len(v))
		for i, element := range v {
			p, err := plainValue(element, depth+1)
			if err != nil {
				return nil, err.below(strconv.Itoa(i))
			}
			out[i] = p
		}
		return out, nil
	}
	return plainOther(v, depth)
}

// plainOther takes any other Go value by way of its JSON.
func plainOther(v any, depth int) (any, *Error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, &Error{Code: CodeMalformed, Message: err.Error()}
	}
	var out any
	if err := decode(data, &out); err != nil {
		return nil, &Error{Code: CodeMalformed, Message: err.Error()}
	}
	return plainValue(out, depth)
}

// number returns a float64, or a json.Number where that could not hold the
// integer, so that no number changes on its way through a twin.
func number(s string) (any, *Error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != f || f-f != 0 {
		return nil, &Error{Code: CodeMalformed, Message: fmt.Sprintf("number %.40s cannot be represented", s)}
	}
	if (f > maxVersion || f < -maxVersion) && !strings.ContainsAny(s, ".eE") {
		return json.Number(s), nil
	}
	return f, nil
}

// checkKey reports a key that is not allowed in a twin: $ starts our own
// members, and a dot separates keys in paths.
func checkKey(key string) *Error {
	bad := func(why string) *Error {
		return &Error{Code: CodeMalformed, Path: clip(key), Message: "key " + why}
	}
	switch {
	case key == "":
		return bad("is empty")
	case len(key) > MaxKey:
		return bad(fmt.Sprintf("has %d bytes, and may have %d", len(key), MaxKey))
	case !utf8.ValidString(key):
		return bad("is not UTF-8")
	}
	for _, r := range key {
		if r == '$' || r == '.' || r < 0x20 || (r >= 0x7f && r <= 0x9f) {
			return bad(fmt.Sprintf("holds %q: $, . and control characters are not allowed", r))
		}
	}
	return nil
}

// clip makes a key presentable in an error.
func clip(key string) string {
	if len(key) > 64 {
		key = key[:64] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || (r >= 0x7f && r <= 0x9f) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(key, string(utf8.RuneError)))
}

func tooDeep() *Error {
	return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("more than %d objects or arrays within each other", MaxDepth)}
}
