package gitsource

import (
	"fmt"
	"time"
)

// Limits bound what a fleet repository may cost a device. What goes beyond
// is refused with the figure that was exceeded; none is reached by accident: a
// fleet of a thousand devices is some 2000 files and 2 MB.
type Limits struct {
	PackBytes   int64         // one transfer, compressed, as it comes over the wire and lies on disk
	PackObjects int           // objects in one transfer
	ObjectBytes int64         // one object in a transfer, inflated; it is in memory as a whole
	TotalBytes  int64         // all objects of one transfer, inflated: the bound on decompression bombs
	FileBytes   int64         // one file of the tree, inflated
	Entries     int           // files and directories of one commit's tree, counted along each path
	Depth       int           // directories above a file
	Commits     int           // commits between the accepted one and the tip that can be proven, one step
	Packs       int           // packs on disk before they are written anew as one
	Stall       time.Duration // a transfer that moves less than 4 KiB in this time has ended
}

// DefaultLimits is what Open sets.
func DefaultLimits() Limits {
	return Limits{
		PackBytes:   64 << 20,
		PackObjects: 200_000,
		ObjectBytes: 32 << 20,
		TotalBytes:  256 << 20,
		FileBytes:   8 << 20,
		Entries:     50_000,
		Depth:       32,
		Commits:     10_000,
		Packs:       16,
		Stall:       60 * time.Second,
	}
}

// limitError says which bound was exceeded.
type limitError struct {
	what        string
	bound, have int64 // have is 0 where counting stopped at the bound
}

func (e *limitError) Error() string {
	if e.have == 0 {
		return fmt.Sprintf("%s: more than %d, which is the bound", e.what, e.bound)
	}
	return fmt.Sprintf("%s: %d, and the bound is %d", e.what, e.have, e.bound)
}
