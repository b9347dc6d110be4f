package gitsource

import (
	"fmt"
	"syscall"
)

// DamagedError says that something of the accepted commit cannot be read from the
// clone: this device's disk is at fault, and not the commit. The next Fetch that
// reaches the repository makes the clone anew, also where the branch has not
// moved, and the tree that was read from is readable again.
//
// It wraps syscall.EIO, as any other fault of a disk does.
type DamagedError struct{ Err error }

// Error says what was found, and what becomes of it.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("the copy of the repository is damaged: fetched anew when the link is back: %v", e.Err)
}

// Unwrap returns what was found, and syscall.EIO.
func (e *DamagedError) Unwrap() []error { return []error{e.Err, syscall.EIO} }

// damage has the next Fetch make the clone anew, when err says that something
// could not be read.
func (s *Source) damage(err error) error {
	if err == nil {
		return nil
	}
	s.damaged.Store(true)
	return &DamagedError{err}
}
