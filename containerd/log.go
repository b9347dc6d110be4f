package containerd

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"sync"

	"github.com/tidemark-edge/tidemark/containerd/output"
	"github.com/tidemark-edge/tidemark/schema"
)

// logs are the modules' output, and of which modules it was when old logs were
// pruned last.
type logs struct {
	once   sync.Once
	files  output.Files
	mu     sync.Mutex
	pruned []string
}

// Logs are the files with what modules print.
func (r *Runtime) Logs() *output.Files {
	r.logs.once.Do(func() {
		r.logs.files.Dir, r.logs.files.Max, r.logs.files.Warn = LogDir(r.StateDir), r.LogBytes, r.Warn
	})
	return &r.logs.files
}

// LogDir is where the modules' output is, for who reads it with package output.
func LogDir(stateDir string) string { return filepath.Join(stateDir, "logs") }

// KeepLogs keeps the modules' output within its bound until ctx ends. Nothing
// else does.
func (r *Runtime) KeepLogs(ctx context.Context) { r.Logs().Run(ctx) }

// Tail implements reconciler.Output.
func (r *Runtime) Tail(module string, lines int) string { return r.Logs().Tail(module, lines) }

// openLog prepares the file where a shim writes what a module prints, and
// returns what to call it for standard output and standard error. A module
// whose log cannot be written runs without: it would block on its first lines.
func (r *Runtime) openLog(module string) (stdout, stderr string) {
	file, err := r.Logs().Begin(module)
	if err != nil {
		if r.Warn != nil {
			r.Warn(err)
		}
		file = "/dev/null"
	}
	if _, err := url.Parse(file); err != nil { // the shim parses what it gets
		address := (&url.URL{Scheme: "file", Path: file}).String()
		return address, address
	}
	// Two names for one file, and no scheme: a shim that is told of one name opens
	// it once, closes it when the module closes its standard output, and then
	// takes nothing from its standard error; the module blocks (containerd 1.6 to 2.4).
	dir, base := filepath.Split(file)
	return file, dir + "./" + base
}

// rescueLogs takes what modules print whose shims do not any more, because the
// disk was full.
func (r *Runtime) rescueLogs(containers []schema.Container) {
	for _, c := range containers {
		if c.Module == "" || c.PID == 0 || !r.Logs().Suspect(c.Module) {
			continue
		}
		// The error is that the process has ended: the next look shows it.
		if rescued, _ := r.Logs().Rescue(c.Module, c.PID); rescued && r.Warn != nil {
			r.Warn(fmt.Errorf("log of %s: its shim stopped writing when the disk was full; the agent writes in its place: make room, then restart the module", c.Module))
		}
	}
}

// pruneLogs deletes old logs when the modules that have containers change.
func (r *Runtime) pruneLogs(modules []string) {
	slices.Sort(modules)
	modules = slices.Compact(modules)
	r.logs.mu.Lock()
	defer r.logs.mu.Unlock()
	if r.logs.pruned != nil && slices.Equal(modules, r.logs.pruned) {
		return
	}
	if err := r.Logs().Prune(modules); err != nil && r.Warn != nil {
		r.Warn(err)
	}
	r.logs.pruned = append([]string{}, modules...)
}
