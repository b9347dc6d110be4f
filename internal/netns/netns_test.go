package netns

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// tenant is a process in a network namespace of its own, until its input ends.
func tenant(t *testing.T) (pid int, leave func()) {
	t.Helper()
	cat := exec.Command("cat")
	cat.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	stdin, err := cat.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	return cat.Process.Pid, func() { stdin.Close(); cat.Wait() }
}

func TestDoIsInTheNamespaceAndNobodyElseIs(t *testing.T) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // on whichever threads the scheduler takes
		pid, leave := tenant(t)
		namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			t.Fatal(err)
		}
		routes := func() string {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/fib_trie", pid))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		if strings.Contains(routes(), "127.0.0.1") {
			t.Fatal("the loopback is up at first")
		}
		for range 2 { // one that is up stays up
			if err := Do(namespace, LoopbackUp); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(routes(), "127.0.0.1") {
				t.Fatal("the loopback is still down")
			}
		}
		namespace.Close()
		leave()
	}
	if now, _ := os.Readlink("/proc/self/ns/net"); now != own {
		t.Errorf("this process went into %s", now)
	}
}

func TestDoTellsErrors(t *testing.T) {
	own, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := Do(own, func() error { return io.EOF }); err != io.EOF {
		t.Errorf("of what was called: %v", err)
	}
	none, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	called := false
	err = Do(none, func() error { called = true; return nil })
	if !errors.Is(err, unix.EINVAL) || called {
		t.Errorf("of no namespace: %v, called %v", err, called)
	}
}

// A process whose main thread is in a module's namespace looks, in /proc, as if
// it were there as a whole, and would for ever.
func TestOnOwnThreadSparesTheMainThread(t *testing.T) {
	var wait sync.WaitGroup
	for range 200 {
		wait.Go(func() {
			err := onOwnThread(func() error {
				if unix.Gettid() == unix.Getpid() {
					return errors.New("it was given away")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}
