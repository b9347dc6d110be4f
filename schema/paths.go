package schema

import (
	"fmt"
	"path/filepath"
	"reflect"
)

// absolutePaths makes the file names of a configuration absolute: those whose
// field is tagged `path:"file"`, relative to dir.
func absolutePaths(v reflect.Value, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	resolvePaths(v, dir, false)
	return nil
}

func resolvePaths(v reflect.Value, dir string, isFile bool) {
	switch v.Kind() {
	case reflect.String:
		if isFile && v.String() != "" && !filepath.IsAbs(v.String()) {
			v.SetString(filepath.Join(dir, v.String()))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			resolvePaths(v.Elem(), dir, isFile)
		}
	case reflect.Slice:
		for i := range v.Len() {
			resolvePaths(v.Index(i), dir, isFile)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			entry := reflect.New(v.Type().Elem()).Elem()
			entry.Set(v.MapIndex(key))
			resolvePaths(entry, dir, isFile)
			v.SetMapIndex(key, entry)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			resolvePaths(v.Field(i), dir, v.Type().Field(i).Tag.Get("path") == "file")
		}
	}
}
