package twin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MarshalJSON writes the values with $version, $metadata, $source and $override
// among them, as Azure IoT Hub does with the first two. Keys are sorted.
func (s Section) MarshalJSON() ([]byte, error) { return s.append(nil), nil }

func (s Section) append(b []byte) []byte {
	b = append(b, '{')
	for _, key := range slices.Sorted(maps.Keys(s.Values)) {
		b = append(appendString(b, key), ':')
		b = append(appendValue(b, s.Values[key]), ',')
	}
	b = append(b, `"$metadata":`...)
	b = appendValue(b, orEmpty(s.Metadata))
	if s.Override != nil {
		b = s.Override.append(append(b, `,"$override":`...))
	}
	if s.Source != "" {
		b = appendString(append(b, `,"$source":`...), s.Source)
	}
	b = strconv.AppendUint(append(b, `,"$version":`...), s.Version, 10)
	return append(b, '}')
}

// UnmarshalJSON reads what MarshalJSON writes, and refuses an override that
// Override.Check does. Other members with a $ are left out.
func (s *Section) UnmarshalJSON(data []byte) error {
	var all map[string]any
	if err := decode(data, &all); err != nil {
		return err
	}
	out := Section{Values: make(map[string]any, len(all)), Metadata: map[string]any{}}
	if _, ok := all["$override"]; ok {
		var raw map[string]json.RawMessage
		out.Override = &Override{}
		if err := errors.Join(json.Unmarshal(data, &raw), out.Override.UnmarshalJSON(raw["$override"])); err != nil {
			return fmt.Errorf("read twin section: %w", err)
		}
	}
	for key, v := range all {
		v := settle(v)
		var ok bool
		switch key {
		case "$version":
			var f float64
			f, ok = v.(float64)
			ok = ok && f >= 0 && f <= maxVersion && f == math.Trunc(f)
			out.Version = uint64(f)
		case "$metadata":
			out.Metadata, ok = v.(map[string]any)
		case "$source":
			out.Source, ok = v.(string)
		default:
			if ok = true; !strings.HasPrefix(key, "$") {
				out.Values[key] = v
			}
		}
		if !ok {
			return fmt.Errorf("read twin section: %s is not what it should be", key)
		}
	}
	*s = out
	return nil
}

// Decode stores the values, without the $ members, in the Go value that v
// points to, by the rules of encoding/json.
func (s Section) Decode(v any) error {
	if err := json.Unmarshal(appendValue(nil, orEmpty(s.Values)), v); err != nil {
		return fmt.Errorf("decode twin section: %w", err)
	}
	return nil
}

// Encode writes the document as compact JSON with sorted keys. Unlike
// json.Marshal it leaves <, > and & as they are.
func (d Document) Encode() []byte {
	b := appendString([]byte(`{"device":`), d.Device)
	if d.Module != "" {
		b = appendString(append(b, `,"module":`...), d.Module)
	}
	if d.Removed {
		b = append(b, `,"removed":true`...)
	}
	if len(d.Tags) > 0 {
		b = appendValue(append(b, `,"tags":`...), d.Tags)
	}
	b = d.Properties.Desired.append(append(b, `,"properties":{"desired":`...))
	b = d.Properties.Reported.append(append(b, `,"reported":`...))
	return append(b, "}}"...)
}

// ReadDocument reads a document from the wire or from disk.
func ReadDocument(data []byte) (Document, error) {
	var d Document
	if len(data) > MaxDocument {
		return Document{}, fmt.Errorf("read twin: %d bytes are more than the %d a twin has", len(data), MaxDocument)
	}
	if err := decode(data, &d); err != nil {
		return Document{}, fmt.Errorf("read twin: %w", err)
	}
	if d.Tags != nil {
		d.Tags, _ = settle(d.Tags).(map[string]any)
	}
	return d, nil
}

// decode reads exactly one JSON value, keeping numbers as they are written.
func decode(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// settle turns the numbers in v, in place, into what number makes of them. One
// that cannot be represented stays as it is written.
func settle(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := number(string(v)); err == nil {
			return n
		}
	case map[string]any:
		for key, member := range v {
			v[key] = settle(member)
		}
	case []any:
		for i, element := range v {
			v[i] = settle(element)
		}
	}
	return v
}

// appendValue appends the compact JSON of a value in the types that plain
// leaves: by hand, because json.Marshal escapes HTML below a MarshalJSON
// whatever the encoder was told, and because each reported update waits for it.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case string:
		return appendString(b, v)
	case float64:
		if v == math.Trunc(v) && math.Abs(v) <= maxVersion {
			return strconv.AppendInt(b, int64(v), 10)
		}
	case map[string]any:
		b = append(b, '{')
		for i, key := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, key), ':')
			b = appendValue(b, v[key])
		}
		return append(b, '}')
	case []any:
		b = append(b, '[')
		for i, element := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, element)
		}
		return append(b, ']')
	}
	other, err := json.Marshal(v)
	if err != nil {
		return append(b, "null"...) // NaN and the like, which plain refuses
	}
	return append(b, other...)
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s { // an invalid byte becomes U+FFFD
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

func orEmpty(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}
