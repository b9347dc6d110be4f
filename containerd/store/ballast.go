package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ballastBytes is the room that deleting needs: containerd writes to its
// database, which may have to grow, before it deletes a file.
const ballastBytes = 4 << 20

// ballastFile lies in containerd's root, on the filesystem of its database.
const ballastFile = "tidemark.ballast"

// shed gives the ballast up where the disk is full, so that something can be
// deleted there. Otherwise it does nothing.
func shed(at roots) error {
	room, err := free(filepath.Dir(at.database))
	if err != nil || room >= ballastBytes {
		return err
	}
	if err := os.Remove(at.ballast()); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("give up the ballast: %w", err)
	}
	return syncfs(filepath.Dir(at.ballast())) // before that, its blocks may not be had
}

// load takes the ballast on board, where it is not there and there is plenty of
// room. Without it only what needs no growth can be deleted from a full disk, so
// failing is no error.
func load(at roots) {
	if info, err := os.Lstat(at.ballast()); err == nil && info.Size() == ballastBytes {
		return
	}
	if room, err := free(filepath.Dir(at.database)); err != nil || room < 2*ballastBytes {
		return
	}
	f, err := os.OpenFile(at.ballast(), os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Fallocate(int(f.Fd()), 0, 0, ballastBytes) != nil {
		_ = os.Remove(at.ballast()) // a part of it is none
	}
}

// ballast is the path of the ballast.
func (at roots) ballast() string { return filepath.Join(at.daemon(), ballastFile) }

// daemon is containerd's root directory.
func (at roots) daemon() string { return filepath.Dir(filepath.Dir(at.database)) }

// crumb is how much of the ballast is given up at a time to make a task, in
// bytes; it needs a block or two.
const crumb = 64 << 10

// Crumble gives up a piece of the ballast. To make a task, containerd 1.6 and 2
// make a directory below their root, which is on a disk, and delete it with the
// task. All else that a task needs (bundle, specification, pipes) is below the
// state directory, on a tmpfs. So on a disk without one free block a module that
// ended would stay down for want of one. What is left of the ballast is for the
// next time, and for Prune, which takes in what is missing. An error says that there
// is none to give.
func (s *Store) Crumble(ctx context.Context) error {
	at, err := s.roots(ctx)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(at.ballast(), os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("give up ballast: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return errors.Join(errors.New("give up ballast: there is none left"), err)
	}
	if err := f.Truncate(max(0, info.Size()-crumb)); err != nil {
		return fmt.Errorf("give up ballast: %w", err)
	}
	return f.Sync() // before that, its blocks may not be had
}
