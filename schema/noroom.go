package schema

import "fmt"

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
