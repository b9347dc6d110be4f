package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// keepSecrets lets no core dump of this process and no debugger of another one
// have what it knows: the seeds of identities. What it executes is not concerned,
// nor what containerd runs. A crash still prints its stack.
func keepSecrets() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}
