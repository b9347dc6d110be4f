package leaf

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
)

// Attach answers for the leaf inside the network namespace of a process of a
// module: its 127.0.0.1 at the leaf's port is then the leaf. It brings the
// namespace's loopback up. Whoever comes in there is the module, or nobody. A
// second call for the same namespace, and a call for a process on the device's
// own network, change nothing. The door closes when the process has ended, and
// with the leaf.
func (l *Leaf) Attach(_ context.Context, module string, pid int) error {
	if err := schema.CheckName(module); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if err := l.doors.Open(module, pid); err != nil {
		return fmt.Errorf("attach module %s, process %d: %w", module, pid, err)
	}
	if _, err := identity.ModuleKey(l.config.RunDir, module); errors.Is(err, identity.ErrNoSeed) {
		// The mount in its container shows a directory that was deleted.
		l.warn(fmt.Errorf("module %s runs, but its credential in %s was deleted, so it has no twin and cannot send: it gets a new one when it starts again (kill %d)", module, l.config.RunDir, pid))
	}
	return nil
}
