package containerd

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLoopbackUp(t *testing.T) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // on whichever threads the scheduler takes
		cat := exec.Command("cat") // until its input ends
		cat.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		stdin, err := cat.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cat.Start(); err != nil {
			t.Fatal(err)
		}
		routes := func() string {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/fib_trie", cat.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		if strings.Contains(routes(), "127.0.0.1") {
			t.Fatal("the loopback is up at first")
		}
		if err := loopbackUp(cat.Process.Pid); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(routes(), "127.0.0.1") {
			t.Fatal("the loopback is still down")
		}
		stdin.Close()
		cat.Wait()
	}
	if now, _ := os.Readlink("/proc/self/ns/net"); now != own {
		t.Errorf("this process went into %s", now)
	}
	if err := loopbackUp(1 << 30); err == nil {
		t.Error("the loopback of nobody was brought up")
	}
}

// A main thread that was changed would stay so for ever.
func TestOnOwnThreadSparesTheMainThread(t *testing.T) {
	for range 200 {
		err := onOwnThread(func() error {
			if unix.Gettid() == unix.Getpid() {
				return fmt.Errorf("on the main thread")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
