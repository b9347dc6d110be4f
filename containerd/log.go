package containerd

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxLog bounds what is kept of a module's output, in bytes. The file can be
// larger for as long as no Runtime observes.
const maxLog = 8 << 20

// logFile is where the shim writes what a module prints, so that no agent
// stands between: one that is dead or slow blocks nothing.
func (r *Runtime) logFile(module string) string {
	return filepath.Join(r.StateDir, "logs", module+".log")
}

// openLog makes the file, so that it is ours and not the world's to read, and
// returns the address that a shim understands.
func (r *Runtime) openLog(module string) (string, error) {
	file := r.logFile(module)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", fmt.Errorf("log: %w", err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return "", fmt.Errorf("log: %w", err)
	}
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("log: %w", err)
	}
	return (&url.URL{Scheme: "file", Path: file}).String(), nil
}

// boundLog drops the older half of a log that has grown beyond maxLog, in
// place: the shim has the file open for appending.
func (r *Runtime) boundLog(module string) error {
	file := r.logFile(module)
	info, err := os.Stat(file)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() <= maxLog {
		return nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return dropHead(f, info.Size()-maxLog/2)
}

// dropHead removes about n bytes from the start of f. The filesystem does it
// without copying, and without losing what is written meanwhile, where it can
// (ext4, XFS, F2FS); elsewhere the whole content goes.
func dropHead(f *os.File, n int64) error {
	const align = 64 << 10 // a multiple of the block size of any of them
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, n/align*align); err == nil {
		return nil
	}
	return f.Truncate(0)
}
