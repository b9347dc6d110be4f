package output

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// spareSize is what a filesystem may need to make a hole; XFS refuses to while
// it has not that much room, and a full disk would stay full.
const spareSize = 256 << 10

// spare is a file that takes room on the disk to give it back when there is
// none. Nil has nothing.
type spare struct {
	path string
	mu   sync.Mutex
	full bool
}

// take allocates the spare, or as much of it as there is.
func (s *spare) take() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return
	}
	f, err := openLog(s.path, os.O_CREATE|os.O_WRONLY)
	if err != nil {
		return // tried again at the next look
	}
	defer f.Close()
	got, err := allocate(f, 0, spareSize)
	s.full = got == spareSize || errors.Is(err, unix.EOPNOTSUPP)
}

// give makes room on the disk.
func (s *spare) give() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = false
	_ = os.Truncate(s.path, 0) // needs no room; if it fails, so does what it is for
}
