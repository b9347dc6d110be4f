package schema

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
)

// The refusal shows the whole calculation, and what to do.
func TestNoRoomShowsItsArithmetic(t *testing.T) {
	refused := &NoRoomError{Path: "/var/lib/containerd", Download: 100 << 20, Unpacked: 250 << 20, Free: 300 << 20, Reserve: 128 << 20}
	want := "no room on the filesystem of /var/lib/containerd: 100.0 MiB to download + about 250.0 MiB unpacked + 128.0 MiB in reserve = 478.0 MiB, and 300.0 MiB are free: free 178.0 MiB, or lower disk.reserve"
	if got := refused.Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := refused.Missing(); got != 178<<20 {
		t.Errorf("%d bytes are missing, want %d", got, 178<<20)
	}
	var found *NoRoomError
	if !errors.As(fmt.Errorf("pull x: %w", refused), &found) || found != refused {
		t.Error("it cannot be told from other errors")
	}
}

// A full disk has nothing free, and the reserve alone may be what is missing.
func TestNoRoomOnAFullDisk(t *testing.T) {
	refused := &NoRoomError{Path: "/", Reserve: 1 << 20}
	if got := refused.Missing(); got != 1<<20 {
		t.Errorf("%d bytes are missing, want %d", got, 1<<20)
	}
	want := "no room on the filesystem of /: 0 B to download + about 0 B unpacked + 1.0 MiB in reserve = 1.0 MiB, and 0 B are free: free 1.0 MiB, or lower disk.reserve"
	if got := refused.Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// What containerd answers is a text.
func TestIsNoRoom(t *testing.T) {
	for want, errs := range map[bool][]error{
		true: {
			fmt.Errorf("room: %w", &NoRoomError{}), fmt.Errorf("write: %w", syscall.ENOSPC), fmt.Errorf("write: %w", syscall.EDQUOT),
			errors.New("rpc error: failed to copy: write /var/lib/containerd/x: no space left on device"),
			errors.New("mkdir /x: disk quota exceeded: unknown"),
		},
		false: {nil, errors.New("no space"), syscall.EIO},
	} {
		for _, err := range errs {
			if got := IsNoRoom(err); got != want {
				t.Errorf("%v: %v", err, got)
			}
		}
	}
}
