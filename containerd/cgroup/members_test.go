package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// makeGroup makes a group in one hierarchy, and puts a process into it that waits
// for its input to end.
func makeGroup(t *testing.T, group string) *exec.Cmd {
	t.Helper()
	dir := filepath.Join(top, group)
	if !unified() {
		dir = filepath.Join(top, "pids", group)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.Remove(dir)
		os.Remove(filepath.Dir(dir))
	})
	cat := exec.Command("cat")
	if _, err := cat.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cat.Process.Kill() })
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cat.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	return cat
}

func TestEndMembers(t *testing.T) {
	group := Path(fmt.Sprintf("tmtest-cgroup-%d", os.Getpid()), "sensor")
	if dirs := Dirs(group); len(dirs) != 0 {
		t.Fatalf("there is a group: %q", dirs)
	}
	cat := makeGroup(t, group)
	dirs := Dirs(group)
	if len(dirs) != 1 {
		t.Fatalf("the group is %q", dirs)
	}
	if OOMKilled(group) {
		t.Error("nothing was ended for its memory")
	}
	if n, err := EndMembers(dirs); n != 1 || err != nil {
		t.Errorf("saw %d, %v", n, err)
	}
	cat.Wait()
	if status := cat.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Errorf("it ended by %v", status)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		n, err := EndMembers(dirs)
		if err == nil && n == 0 {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("still %d, %v", n, err)
		}
	}
	if err := os.Remove(dirs[0]); err != nil {
		t.Fatal(err)
	}
	if n, err := EndMembers(dirs); n != 0 || err != nil { // as is what went meanwhile
		t.Errorf("of no group: %d, %v", n, err)
	}
}
