package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/schema"
)

// DefaultMax is the bound where Files has none, in bytes.
const DefaultMax = 4 << 20

// Files are the logs of all modules of a device. The fields are set before the
// first call; the methods may be called concurrently. One process at a time has
// Files for a directory; any number may read it with Open.
type Files struct {
	// Dir holds the logs. It is made when it is needed, for its owner only.
	Dir string
	// Max bounds what each module takes on the disk, in bytes: three quarters are
	// for what it printed, one is kept free for what it prints next. 0 is DefaultMax.
	Max int64
	// Warn is told, once, of each thing that keeps a log from being bounded or
	// dated. Nil is nobody.
	Warn func(error)

	mu      sync.Mutex
	spare   *spare
	known   map[string]*file // by module
	begun   map[string]bool  // modules that Begin was called for
	drained map[uint64]bool  // pipes that Rescue has read since, by inode
}

// Begin prepares the log of a module that is about to be started, and marks
// there that a run begins. It returns the file that a shim shall append to. An
// error means that the log would not take a byte: the module would block once it
// has printed more than a pipe holds.
func (f *Files) Begin(module string) (path string, err error) {
	if err := schema.CheckName(module); err != nil {
		return "", fmt.Errorf("log: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(f.Dir, marksDir), 0o700); err != nil {
		return "", fmt.Errorf("log of %s: %w", module, err)
	}
	f.mu.Lock()
	if f.begun == nil {
		f.begun = map[string]bool{}
	}
	f.begun[module] = true
	f.mu.Unlock()
	one := f.file(module)
	warning, err := one.begin(f.Max, present())
	f.spare.take()
	if err != nil {
		return "", fmt.Errorf("log of %s: %w", module, err)
	}
	f.warn(one, warning)
	return one.path, nil
}

// file is what is known of the module's log.
func (f *Files) file(module string) *file {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil {
		f.known = map[string]*file{}
		if f.Max == 0 {
			f.Max = DefaultMax
		}
		f.spare = &spare{path: filepath.Join(f.Dir, marksDir, ".spare")}
		f.sweep()
	}
	one, ok := f.known[module]
	if !ok {
		one = &file{path: logPath(f.Dir, module), marksPath: marksPath(f.Dir, module), spare: f.spare}
		f.known[module] = one
	}
	return one
}

// sweep removes what a process left that was killed while it replaced a file.
func (f *Files) sweep() {
	left, _ := filepath.Glob(filepath.Join(f.Dir, marksDir, ".new-*"))
	for _, path := range left {
		_ = os.Remove(path) // tried again by the next process
	}
}

// warn tells of a problem with a log when it is not the one told of last.
func (f *Files) warn(one *file, problem error) {
	if f.Warn != nil && one.news(problem) {
		f.Warn(fmt.Errorf("log %s: %w", one.path, problem))
	}
}

// Kept is how many logs of modules that are no longer there stay.
const Kept = 8

// Prune deletes the logs of modules that are not in use, but for the Kept that
// were written to last. Logs that Begin was called for stay.
func (f *Files) Prune(use []string) error {
	all, err := List(f.Dir)
	if err != nil {
		return err
	}
	stay := map[string]bool{}
	for _, module := range use {
		stay[module] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var problems []error
	idle := 0
	for _, info := range all { // newest first
		if stay[info.Module] || f.begun[info.Module] {
			continue
		}
		if idle++; idle <= Kept {
			continue
		}
		delete(f.known, info.Module)
		for _, path := range []string{logPath(f.Dir, info.Module), marksPath(f.Dir, info.Module)} {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				problems = append(problems, fmt.Errorf("delete a log: %w", err))
			}
		}
	}
	return errors.Join(problems...)
}

const (
	logSuffix = ".log"
	marksDir  = "marks"
)

func logPath(dir, module string) string   { return filepath.Join(dir, module+logSuffix) }
func marksPath(dir, module string) string { return filepath.Join(dir, marksDir, module) }

// moduleOf is the module whose log has that file name.
func moduleOf(name string) (module string, ok bool) {
	module, ok = strings.CutSuffix(name, logSuffix)
	return module, ok && schema.CheckName(module) == nil
}

// openLog opens a log, which must be a plain file, and makes it with flag
// O_CREATE.
func openLog(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is not a plain file: remove it", path), err, f.Close())
	}
	return f, nil
}
