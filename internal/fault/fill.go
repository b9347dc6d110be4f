package fault

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

const block = 4096 // bytes, of both filesystems as they are made here

// Fill takes every block of the disk but the last left ones. It may be called
// again, when something else has freed blocks.
func (d *Disk) Fill(left int) {
	d.t.Helper()
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil && errors.Is(err, syscall.ENOSPC) {
		return // there is not even room for the filler
	}
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		d.t.Fatal(err)
	}
	end := info.Size()
	// Large pieces cost nothing: they are reserved, not written.
	for piece := int64(64 << 20); piece >= block; {
		if err = syscall.Fallocate(int(f.Fd()), 0, end, piece); err == nil {
			end += piece
		} else if errors.Is(err, syscall.ENOSPC) {
			piece /= 2
		} else {
			d.t.Fatalf("fill %s: %v", d.Dir, err)
		}
	}
	if err := f.Truncate(max(0, end-int64(left)*block)); err != nil {
		d.t.Fatalf("fill %s: %v", d.Dir, err)
	}
	if err := f.Sync(); err != nil { // what is freed is to be had at once
		d.t.Fatalf("fill %s: %v", d.Dir, err)
	}
}

// Free gives back what Fill took.
func (d *Disk) Free() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Fatal(err)
	}
	syscall.Sync()
}

// filler is the file that fills the disk.
func (d *Disk) filler() string { return filepath.Join(d.Dir, ".filler") }

// Available is how many bytes of the disk are free.
func (d *Disk) Available() int64 {
	d.t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.Dir, &s); err != nil {
		d.t.Fatal(err)
	}
	return int64(s.Bavail) * int64(s.Bsize)
}
