package unified

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// kernelModules finds what modules names, and what those depend on, below a
// kernel's folder. It returns them as files of the initial file system, and their
// names there, each after those that it depends on.
func kernelModules(t testing.TB, kernel string) (files []file, names []string) {
	t.Helper()
	found := map[string]string{} // by name
	builtin := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(kernel, "lib", "modules"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "modules.builtin" {
			b, err := os.ReadFile(path)
			for line := range strings.Lines(string(b)) {
				builtin[moduleName(strings.TrimSpace(line))] = true
			}
			return err
		}
		if filepath.Ext(path) == ".ko" {
			found[moduleName(path)] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var add func(name string)
	add = func(name string) {
		if slices.Contains(names, name+".ko") || builtin[name] {
			return
		}
		path, ok := found[name]
		if !ok {
			t.Fatalf("the kernel in %s has no module %s", kernel, name)
		}
		needs, err := dependencies(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range needs {
			add(n)
		}
		files, names = append(files, file{name: name + ".ko", source: path}), append(names, name+".ko")
	}
	for _, name := range modules {
		add(name)
	}
	return files, names
}

// moduleName is the kernel's name for the module in a file.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// dependencies are the modules that the one in a file says it needs.
func dependencies(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the kernel's module: %w", err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("read the kernel's module %s: it does not tell what it depends on", path)
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's module %s: %w", path, err)
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := strings.CutPrefix(string(entry), "depends="); ok && list != "" {
			return strings.Split(strings.ReplaceAll(list, "-", "_"), ","), nil
		}
	}
	return nil, nil
}
