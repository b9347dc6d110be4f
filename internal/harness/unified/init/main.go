// Command init is the first program of package unified's machine: it loads the
// kernel's modules, mounts the outer machine's files and control groups of
// version 2, runs what it is told to, and turns the machine off.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/tidemark-edge/tidemark/internal/harness/unified/order"
	"golang.org/x/sys/unix"
)

func main() {
	status, err := play()
	if err != nil {
		fmt.Println("init:", err) // on the kernel's console
	} else {
		fmt.Fprintln(os.Stdout, order.Ended, status)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("init: turn off:", err)
	}
}

// play carries out the order and returns the exit status of the last program that
// it ran.
func play() (status int, err error) {
	b, err := os.ReadFile("/" + order.File)
	if err != nil {
		return 0, err
	}
	var o order.Order
	if err := json.Unmarshal(b, &o); err != nil {
		return 0, fmt.Errorf("%s: %w", order.File, err)
	}
	for _, m := range o.Modules {
		if err := load("/" + m); err != nil {
			return 0, err
		}
	}
	if err := mountAll(o); err != nil {
		return 0, err
	}
	out, err := os.OpenFile(order.Output, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return 0, err
	}
	os.Stdout = out
	if err := settle(); err != nil {
		return 0, err
	}
	if err := describe(); err != nil {
		return 0, err
	}
	for _, p := range o.Programs {
		if status, err = run(p, o.Env); status != 0 || err != nil {
			break
		}
	}
	return status, err
}

// load loads a module of the kernel from a file.
func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

// describe prints what the machine is: its kernel and the controllers that its
// control groups have.
func describe() error {
	version, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%s %s, version 2 has %s\n", order.World, strings.TrimSpace(string(version)), strings.TrimSpace(string(controllers)))
	return nil
}

// run runs a program, and until it ends reaps whatever else does: that is the duty
// of a machine's first program.
func run(p order.Program, env []string) (status int, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	program, err := os.StartProcess(p.Args[0], p.Args, &os.ProcAttr{Dir: p.Dir, Env: env, Files: []*os.File{null, os.Stdout, os.Stdout}})
	if err != nil {
		return 0, err
	}
	for {
		var how unix.WaitStatus
		pid, err := unix.Wait4(-1, &how, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for %s: %w", p.Args[0], err)
		}
		if pid != program.Pid {
			continue
		}
		if how.Signaled() {
			return 128 + int(how.Signal()), nil
		}
		return how.ExitStatus(), nil
	}
}
