package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockDir makes the directory, and makes this process the only agent or hub
// that works in it.
func lockDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		return nil, fmt.Errorf("state directory %s: another tidemark works in it: stop that one, or set another stateDir", dir)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("state directory %s: lock it: %w", dir, err)
	}
	return func() { f.Close() }, nil
}
