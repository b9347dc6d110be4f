package gitsource

import (
	"os"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// replaceHint writes what can be done without: it waits for no disk, and after
// a power cut the file may be empty.
func replaceHint(path string, content []byte) error {
	return durable.Replace(path, content, 0o600, func(*os.File) error { return nil })
}
