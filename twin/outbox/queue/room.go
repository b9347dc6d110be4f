package queue

import (
	"fmt"
	"syscall"
)

// reserve is what a queue leaves of the disk, in bytes: the agent's own files need
// some, and a disk that is really full stops JetStream.
const reserve = 4 << 20

// room says whether the disk has room for a record of size bytes. JetStream itself
// must not find out that there is none: a stream whose write failed answers
// nothing any more until JetStream is started again.
func (q *Queue) room(size int) error {
	if q.store == "" {
		return nil
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(q.store, &disk); err != nil {
		return nil // it is not there, which the write will say better
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < uint64(size)+reserve {
		return fmt.Errorf("%w: %d bytes are free at %s, %d are left for others", ErrNoSpace, free, q.store, reserve)
	}
	return nil
}
