package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// Process is a program that a test started and ends.
type Process struct {
	t    testing.TB
	cmd  *exec.Cmd
	log  string        // file with its output
	done chan struct{} // closed when it has ended
}

// Start runs cmd with its output in a file of dir, which the test prints when
// it fails.
func Start(t testing.TB, dir string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, cmd: cmd, log: filepath.Join(dir, filepath.Base(cmd.Path)+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		// The kernel sends the death signal when the thread that forked ends,
		// so that thread must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return p
}

// Stop ends the process with sig, and with SIGKILL after a while.
func (p *Process) Stop(sig os.Signal) {
	p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
}

// ended is an error when the process is no more.
func (p *Process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %v", filepath.Base(p.cmd.Path), p.cmd.ProcessState)
	default:
		return nil
	}
}

// printLog shows the tail of the output if the test failed.
func (p *Process) printLog() {
	if !p.t.Failed() {
		return
	}
	b, err := os.ReadFile(p.log)
	if err != nil {
		return
	}
	if len(b) > 8<<10 {
		b = b[len(b)-8<<10:]
	}
	p.t.Logf("%s:\n%s", p.log, b)
}

// PID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is the file with what it printed.
func (p *Process) Log() string { return p.log }
