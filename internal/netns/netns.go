// Package netns does things inside another network namespace: a socket stays in
// the one that it is made in, so what is opened there can be used from outside.
package netns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do calls f on a thread that is in the namespace, and returns f's error, or why
// the namespace cannot be entered. f must not hand its work to other goroutines:
// those run elsewhere. Many may call Do at a time.
func Do(namespace *os.File, f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter its network namespace: %w", err)
		}
		return f()
	})
}

// onOwnThread calls f on a thread that ends afterwards, so that f may change it
// to what no other code may find itself in. That cannot be the main thread: it
// never ends, and what it changes, the process appears in /proc to have changed.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever, so that the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			done <- onOwnThread(f) // which cannot get this one while we hold it
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// LoopbackUp sets the flag that a new namespace's lo lacks, in the namespace of
// the thread that calls it: it is for an f of Do.
func LoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return err
	}
	if lo.Uint16()&unix.IFF_UP != 0 {
		return nil
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
