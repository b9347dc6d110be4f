// Package sandbox evaluates definitions in a child process.
//
// Definitions come from whoever may commit, and CUE can be told to compute for
// ever: it has neither a bound on what it takes nor a way to be stopped. So the
// agent starts its own binary once more, hands it the .cue files of the commit,
// and takes back the result. The child bounds itself in memory, processor time
// and time; the kernel's limits stand behind that, and the parent's patience
// behind both. Whatever the definitions do, the parent goes on and has an error
// that says why.
package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// What an evaluation may take where a Renderer does not say. A hundred modules
// take 24 MiB and 30 ms.
const (
	DefaultMemory = schema.Bytes(256 << 20)
	DefaultCPU    = 10 * time.Second
	DefaultWall   = 30 * time.Second
)

// Renderer evaluates definitions in child processes. The zero value is ready to
// use in a binary whose command `evaluate` is Main.
type Renderer struct {
	Exe    string        // the program to start; empty is this binary
	Args   []string      // that make it call Main; none is "evaluate"
	Dir    string        // the device's directory; empty is found by name
	Memory schema.Bytes  // 0 is DefaultMemory
	CPU    time.Duration // of processor time for each device; 0 is DefaultCPU
	Wall   time.Duration // for each device; 0 is DefaultWall
}

// Render is schema.LoadAt(ctx, tree, device, r.Dir) within limits. Definitions
// that are wrong, or that cost too much, are a *schema.InvalidError; any other
// error is about this machine, or ctx, and says nothing about them.
func (r Renderer) Render(ctx context.Context, tree fs.FS, device string) (schema.Desired, error) {
	files, err := schema.ReadTree(ctx, tree)
	if err != nil {
		return schema.Desired{}, err
	}
	var desired *schema.Desired
	err = r.evaluate(ctx, request{Device: device, Dir: r.Dir}, files, func(m message) error {
		desired = m.Desired
		return m.err()
	})
	if err != nil {
		return schema.Desired{}, err
	}
	if desired == nil {
		return schema.Desired{}, errors.New("evaluate: the child process gave no result")
	}
	return *desired, nil
}

// Devices is schema.LoadAll(ctx, tree) within limits, which hold for each
// device: one that costs too much has that as its error, and the others are not
// affected.
func (r Renderer) Devices(ctx context.Context, tree fs.FS) ([]schema.Entry, error) {
	files, err := schema.ReadTree(ctx, tree)
	if err != nil {
		return nil, err
	}
	entries := []schema.Entry{}
	done := []string{}
	for {
		begun := ""
		err := r.evaluate(ctx, request{All: true, Done: done}, files, func(m message) error {
			if m.Begun != "" {
				begun = m.Begun
			}
			if m.Entry == nil {
				return m.err()
			}
			entries = append(entries, m.Entry.entry())
			done, begun = append(done, m.Entry.Dir), ""
			return nil
		})
		var invalid *schema.InvalidError
		switch {
		case err == nil:
			slices.SortFunc(entries, func(a, b schema.Entry) int { return cmp.Compare(a.Dir, b.Dir) })
			return entries, nil
		case begun == "" || !errors.As(err, &invalid):
			return nil, fmt.Errorf("list devices: %w", err)
		}
		entries = append(entries, schema.Entry{Name: path.Base(begun), Dir: begun, Err: err})
		done = append(done, begun)
	}
}

func (r Renderer) limits() limits {
	l := limits{Memory: int64(r.Memory), CPU: r.CPU, Wall: r.Wall}
	if l.Memory == 0 {
		l.Memory = int64(DefaultMemory)
	}
	if l.CPU == 0 {
		l.CPU = DefaultCPU
	}
	if l.Wall == 0 {
		l.Wall = DefaultWall
	}
	return l
}
