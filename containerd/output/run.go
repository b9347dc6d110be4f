package output

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	pause     = 200 * time.Millisecond // between two looks
	fastPause = 25 * time.Millisecond  // while a log grows fast
	fastPart  = 16                     // by so much of its bound within a pause

	// retryPause is between two attempts to be woken by the kernel, and between
	// two looks at all logs where that is not possible.
	retryPause = time.Second
)

// Run keeps the logs within their bounds, and notes when they grew, until ctx
// ends. It sleeps while nothing is printed.
func (f *Files) Run(ctx context.Context) {
	dir := &file{path: filepath.Join(f.Dir, "*")} // to tell once of what concerns all
	for ctx.Err() == nil {
		err := f.watch(ctx)
		f.lookAtAll()
		if ctx.Err() == nil {
			f.warn(dir, fmt.Errorf("watch it: %w", err))
			sleep(ctx, retryPause)
		}
	}
}

// watch looks at logs that change, for as long as the kernel tells of it.
func (f *Files) watch(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(f.Dir, marksDir), 0o700); err != nil {
		return err
	}
	changes, err := listen(f.Dir)
	if err != nil {
		return err
	}
	defer changes.Close()
	defer context.AfterFunc(ctx, func() { changes.Close() })()
	fast := f.lookAtAll()
	for ctx.Err() == nil {
		if fast {
			sleep(ctx, fastPause)
		} else {
			sleep(ctx, pause)
		}
		names, all, err := changes.next()
		if err != nil {
			return err
		}
		if all {
			fast = f.lookAtAll()
			sleep(ctx, pause) // a directory that goes is emptied first
			if err := changes.there(); err != nil {
				return err
			}
			continue
		}
		fast = false
		for name := range names {
			if module, ok := moduleOf(name); ok && f.look(module) {
				fast = true
			}
		}
	}
	return ctx.Err()
}

// lookAtAll looks at every log there is.
func (f *Files) lookAtAll() (fast bool) {
	entries, err := os.ReadDir(f.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false
	}
	for _, e := range entries {
		if module, ok := moduleOf(e.Name()); ok && f.look(module) {
			fast = true
		}
	}
	return fast
}

// look looks at one log, and reports whether it grows fast.
func (f *Files) look(module string) (fast bool) {
	one := f.file(module)
	grown, err := one.look(f.Max, present())
	f.spare.take()
	f.warn(one, err)
	return grown > f.Max/fastPart
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
