package fault

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

// A program that ended before the test had taken note of its number was taken for
// one that runs, and never started again.
func TestTheEndOfAProgramThatEndsAtOnceIsHeardOf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := boot(t, dir, "")
	t.Cleanup(m.PowerOff)
	for range 300 {
		pid := m.start(filepath.Join(dir, "log"), nil, "/bin/true")
		harness.Eventually(t, func() error {
			if m.end(pid) == "" {
				return errors.New("/bin/true is taken for running")
			}
			return nil
		})
	}
}
