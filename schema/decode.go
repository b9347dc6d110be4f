package schema

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"cuelang.org/go/cue"
)

// decoder turns a concrete CUE value into Go values by their JSON names.
// cue.Value.Decode would do, at three times the cost: it sorts the fields of
// every struct.
type decoder struct {
	p    *problems
	path []string // of the value that is being decoded
}

// decode sets target, an addressable Go value, from v. What does not fit is
// noted at its path.
func (d *decoder) decode(v cue.Value, target reflect.Value) {
	if err := d.set(v, target); err != nil {
		d.p.add(d.path, "%v", err)
	}
}

// in decodes the part of that name.
func (d *decoder) in(name string, v cue.Value, target reflect.Value) {
	d.path = append(d.path, name)
	d.decode(v, target)
	d.path = d.path[:len(d.path)-1]
}

func (d *decoder) set(v cue.Value, target reflect.Value) error {
	switch into := target.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		s, err := v.String()
		if err != nil {
			return err
		}
		return into.UnmarshalText([]byte(s))
	case json.Unmarshaler:
		b, err := v.MarshalJSON()
		if err != nil {
			return err
		}
		return into.UnmarshalJSON(b)
	case *map[string]any:
		m, err := d.object(v)
		*into = m
		return err
	}
	switch target.Kind() {
	case reflect.String:
		s, err := v.String()
		target.SetString(s)
		return err
	case reflect.Bool:
		b, err := v.Bool()
		target.SetBool(b)
		return err
	case reflect.Int, reflect.Int64:
		n, err := v.Int64()
		target.SetInt(n)
		return err
	case reflect.Float64:
		f, err := v.Float64()
		target.SetFloat(f)
		return err
	case reflect.Pointer:
		target.Set(reflect.New(target.Type().Elem()))
		return d.set(v, target.Elem())
	case reflect.Struct:
		d.fields(v, target)
		return nil
	case reflect.Map:
		return d.entries(v, target)
	case reflect.Slice:
		return d.elements(v, target)
	}
	return fmt.Errorf("no way to read a %v", target.Type())
}

// fields sets a struct; what v does not have is left as it is.
func (d *decoder) fields(v cue.Value, target reflect.Value) {
	for i, f := range fieldsOf(target.Type()) {
		if field := v.LookupPath(f.path); field.Exists() {
			d.in(f.name, field, target.Field(i))
		}
	}
}

// jsonField is a field of a struct by its JSON name.
type jsonField struct {
	name string
	path cue.Path
}

// knownFields are those of the structs that were decoded so far, by type.
var knownFields sync.Map

func fieldsOf(t reflect.Type) []jsonField {
	if known, ok := knownFields.Load(t); ok {
		return known.([]jsonField)
	}
	fields := make([]jsonField, t.NumField())
	for i := range fields {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields[i] = jsonField{name, cue.MakePath(cue.Str(name))}
	}
	knownFields.Store(t, fields)
	return fields
}

func (d *decoder) entries(v cue.Value, target reflect.Value) error {
	fields, err := v.Fields()
	if err != nil {
		return err
	}
	m := reflect.MakeMap(target.Type())
	for fields.Next() {
		name := fields.Selector().Unquoted()
		value := reflect.New(target.Type().Elem()).Elem()
		d.in(name, fields.Value(), value)
		m.SetMapIndex(reflect.ValueOf(name), value)
	}
	target.Set(m)
	return nil
}

func (d *decoder) elements(v cue.Value, target reflect.Value) error {
	list, err := v.List()
	if err != nil {
		return err
	}
	s := reflect.MakeSlice(target.Type(), 0, 0)
	for i := 0; list.Next(); i++ {
		value := reflect.New(target.Type().Elem()).Elem()
		d.in(strconv.Itoa(i), list.Value(), value)
		s = reflect.Append(s, value)
	}
	target.Set(s)
	return nil
}

// object reads a free-form JSON object.
func (d *decoder) object(v cue.Value) (map[string]any, error) {
	b, err := v.MarshalJSON()
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var m map[string]any
	if err := dec.Decode(&m); err != nil {
		return nil, err
	}
	d.plainNumbers(m, d.path)
	return m, nil
}

// plainNumbers replaces json.Number by float64, which is what JSON is decoded
// to everywhere else, and notes the integers that would change by it.
func (d *decoder) plainNumbers(x any, path []string) any {
	switch x := x.(type) {
	case map[string]any:
		for k, v := range x {
			x[k] = d.plainNumbers(v, extend(path, k))
		}
	case []any:
		for i, v := range x {
			x[i] = d.plainNumbers(v, extend(path, strconv.Itoa(i)))
		}
	case json.Number:
		f, err := x.Float64()
		const exact = 1 << 53
		n, intErr := x.Int64()
		if err != nil || !strings.ContainsAny(x.String(), ".eE") && (intErr != nil || n > exact || n < -exact) {
			d.p.add(path, "%.40s is beyond what JSON's readers keep exact (2^53): write it as a string", x)
		}
		return f
	}
	return x
}

// extend is path with more elements, in memory of its own.
func extend(path []string, names ...string) []string {
	return append(path[:len(path):len(path)], names...)
}
