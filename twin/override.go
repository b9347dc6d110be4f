package twin

import (
	"bytes"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Override is a merge patch over what Git says of desired, that somebody on the
// device set for a while: drift, with a name on it. It ends by itself. In JSON it
// is the member $override of the section.
type Override struct {
	Patch  map[string]any `json:"patch"`            // RFC 7396, over properties.desired of the commit; at most MaxSection bytes
	By     string         `json:"by"`               // who set it; at most MaxBy bytes, never empty
	Reason string         `json:"reason,omitempty"` // why; at most MaxReason bytes
	At     time.Time      `json:"at"`               // when, by the device's clock
	Until  time.Time      `json:"until,omitzero"`   // when it ends, by the device's clock, which may be wrong: what ends it is the time that passes; zero: when somebody ends it
}

// Bounds of an override, beside that of its patch.
const (
	MaxBy     = 256  // bytes of Override.By
	MaxReason = 1024 // bytes of Override.Reason
)

// Check reports why an override cannot be one. The error is an *Error; below
// "patch" its path is that of the member.
func (o Override) Check() error {
	patch, e := plain(o.Patch)
	if e != nil {
		return e.below("patch")
	}
	if n := len(appendValue(nil, patch)); n > MaxSection {
		return &Error{Code: CodeTooLarge, Path: "patch", Message: fmt.Sprintf("has %d bytes, and may have %d", n, MaxSection)}
	}
	if o.By == "" {
		return &Error{Code: CodeMalformed, Path: "by", Message: "nobody is named"}
	}
	if e := checkText("by", o.By, MaxBy); e != nil {
		return e
	}
	if e := checkText("reason", o.Reason, MaxReason); e != nil {
		return e
	}
	for path, t := range map[string]time.Time{"at": o.At, "until": o.Until} {
		if y := t.UTC().Year(); y < 1 || y > 9999 { // what RFC 3339 can write
			return &Error{Code: CodeMalformed, Path: path, Message: fmt.Sprintf("year %d", y)}
		}
	}
	return nil
}

// checkText reports a text that is too long, or that is more than a line.
func checkText(path, text string, most int) *Error {
	if len(text) > most {
		return &Error{Code: CodeTooLarge, Path: path, Message: fmt.Sprintf("has %d bytes, and may have %d", len(text), most)}
	}
	if !utf8.ValidString(text) {
		return &Error{Code: CodeMalformed, Path: path, Message: "is not UTF-8"}
	}
	for _, r := range text {
		if r < 0x20 || (r >= 0x7f && r <= 0x9f) {
			return &Error{Code: CodeMalformed, Path: path, Message: fmt.Sprintf("holds %q: want one line of text", r)}
		}
	}
	return nil
}

// append writes the override as compact JSON with sorted keys, times in
// milliseconds.
func (o Override) append(b []byte) []byte {
	b = append(append(append(b, `{"at":"`...), stampOf(o.At)...), `","by":`...)
	b = append(appendString(b, o.By), `,"patch":`...)
	b = appendValue(b, orEmpty(o.Patch))
	if o.Reason != "" {
		b = appendString(append(b, `,"reason":`...), o.Reason)
	}
	if !o.Until.IsZero() {
		b = append(append(append(b, `,"until":"`...), stampOf(o.Until)...), '"')
	}
	return append(b, '}')
}

// MarshalJSON writes what UnmarshalJSON reads.
func (o Override) MarshalJSON() ([]byte, error) { return o.append(nil), nil }

// UnmarshalJSON reads an override, and refuses what Check does.
func (o *Override) UnmarshalJSON(data []byte) error {
	type fields Override // without this method
	var f fields
	if len(data) > 2*MaxSection+8*(MaxBy+MaxReason) { // escapes can be longer than what they say
		return fmt.Errorf("read override: %d bytes are more than it has", len(data))
	}
	if err := decode(data, &f); err != nil {
		return fmt.Errorf("read override: %w", err)
	}
	if f.Patch == nil {
		return errors.New("read override: it has no patch")
	}
	if err := Override(f).Check(); err != nil {
		return fmt.Errorf("read override: %w", err)
	}
	*o = Override(f).settled()
	return nil
}

// settled returns the override as it is read back: in plain types, times in UTC
// and milliseconds. It has passed Check.
func (o Override) settled() Override {
	o.Patch, _ = plain(o.Patch)
	o.At, o.Until = o.At.UTC().Truncate(time.Millisecond), o.Until.UTC().Truncate(time.Millisecond)
	return o
}

// sameOverride reports whether two overrides, or none, are written alike.
func sameOverride(a, b *Override) bool {
	if a == nil || b == nil {
		return a == b
	}
	return bytes.Equal(a.append(nil), b.append(nil))
}
