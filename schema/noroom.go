package schema

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// NoRoomError says that images do not fit on the disk, with the arithmetic. All
// numbers are bytes.
type NoRoomError struct {
	Path     string // a directory of the filesystem that is meant
	Download int64  // compressed layers that are not here yet
	Unpacked int64  // what they will take unpacked, estimated
	Free     int64  // now
	Reserve  int64  // that the device's owner wants to stay free
}

// Missing is how many bytes would have to be freed.
func (e *NoRoomError) Missing() int64 { return e.Download + e.Unpacked + e.Reserve - e.Free }

func (e *NoRoomError) Error() string {
	return fmt.Sprintf("no room on the filesystem of %s: %s to download + about %s unpacked + %s in reserve = %s, and %s are free: free %s, or lower disk.reserve",
		e.Path, Bytes(e.Download).Short(), Bytes(e.Unpacked).Short(), Bytes(e.Reserve).Short(),
		Bytes(e.Download+e.Unpacked+e.Reserve).Short(), Bytes(e.Free).Short(), Bytes(e.Missing()).Short())
}

// IsNoRoom reports whether err says that a disk is full, in whatever words it came
// here: a *NoRoomError, ENOSPC or EDQUOT in its chain, or the kernel's words for
// those, which is all that containerd passes on.
func IsNoRoom(err error) bool {
	if err == nil {
		return false
	}
	if _, known := errors.AsType[*NoRoomError](err); known {
		return true
	}
	for _, full := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, full) || strings.Contains(err.Error(), full.Error()) {
			return true
		}
	}
	return false
}
