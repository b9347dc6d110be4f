package containerd

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestLoopbackUp(t *testing.T) {
	cat := exec.Command("cat") // until its input ends
	cat.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	stdin, err := cat.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	defer cat.Wait()
	defer stdin.Close()
	if err := loopbackUp(cat.Process.Pid); err != nil {
		t.Fatal(err)
	}
	routes, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/fib_trie", cat.Process.Pid))
	if err != nil || !strings.Contains(string(routes), "127.0.0.1") {
		t.Fatalf("the loopback is still down: %v", err)
	}
	if err := loopbackUp(1 << 30); err == nil {
		t.Error("the loopback of nobody was brought up")
	}
}
