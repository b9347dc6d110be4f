package gitsource

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// replaceHint writes what can be done without: it waits for no disk, and after
// a power cut the file may be empty.
func replaceHint(path string, content []byte) error {
	return durable.Replace(path, content, 0o600, func(*os.File) error { return nil })
}

// globPrefix lists the paths that begin with prefix.
func globPrefix(prefix string) ([]string, error) {
	dir, base := filepath.Split(prefix)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), base) {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found, nil
}
