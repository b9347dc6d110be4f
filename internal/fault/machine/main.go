// Machine is the first process of a simulated device: process 1 of its process
// namespace. It starts and signals what the test says on its standard input,
// reaps what is left to it, and says on its standard output what ended. With it,
// as with the power of a machine, everything ends.
//
//	machine BOOT_ID_FILE HOSTS_FILE KEEP_DEVICE
//
// The files are mounted as the kernel's boot id and as /etc/hosts. Mounts of loop devices other
// than KEEP_DEVICE, and overlays, belong to other tests and are let go of: they would keep the
// disks of those tests in use.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
)

// order is what the test wants.
type order struct {
	Args   []string // start this, or
	Env    []string
	Log    string // file for its output, appended to
	PID    int    // signal this
	Signal int
}

// news is what the machine says: the answer to an order, or that a process ended.
type news struct {
	PID   int    // of what was started
	Ended int    // process that ended
	How   string // how it ended
	Error string
}

var (
	writing sync.Mutex
	out     = json.NewEncoder(os.Stdout)
)

func say(n news) {
	writing.Lock()
	defer writing.Unlock()
	out.Encode(n)
}

func main() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if err := prepare(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "machine:", err)
		os.Exit(1)
	}
	// A process that ends at once must not be reaped before its number is known.
	var starting sync.RWMutex
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for range children {
			reap(&starting)
		}
	}()
	say(news{PID: os.Getpid()})
	for orders := json.NewDecoder(bufio.NewReader(os.Stdin)); ; {
		var o order
		if err := orders.Decode(&o); err != nil {
			os.Exit(0)
		}
		if len(o.Args) == 0 {
			if err := syscall.Kill(o.PID, syscall.Signal(o.Signal)); err != nil {
				say(news{Error: err.Error()})
			} else {
				say(news{})
			}
			continue
		}
		starting.Lock()
		pid, err := start(o)
		if err != nil {
			say(news{Error: err.Error()})
		} else {
			say(news{PID: pid})
		}
		starting.Unlock()
	}
}

// prepare makes the namespaces that the process is in a machine of its own.
func prepare(bootID, hosts, keep string) error {
	if err := syscall.Mount(bootID, "/proc/sys/kernel/random/boot_id", "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("boot id: %w", err)
	}
	if err := syscall.Mount(hosts, "/etc/hosts", "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("hosts: %w", err)
	}
	// What a reboot clears. runc keeps its state there, whoever calls it.
	if err := syscall.Mount("machine", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("/run: %w", err)
	}
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if strings.HasPrefix(f[0], "/dev/loop") && f[0] != keep || f[2] == "overlay" && f[1] != "/" {
			syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
	return nil
}

func start(o order) (int, error) {
	log, err := os.OpenFile(o.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	p, err := os.StartProcess(o.Args[0], o.Args, &os.ProcAttr{
		Dir: "/", Env: o.Env, Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return 0, err
	}
	pid := p.Pid // which Release forgets
	return pid, p.Release()
}

// reap takes leave of every child that has ended, own or orphaned.
func reap(starting *sync.RWMutex) {
	starting.RLock()
	defer starting.RUnlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if pid <= 0 || err != nil {
			return
		}
		how := fmt.Sprintf("exit code %d", status.ExitStatus())
		if status.Signaled() {
			how = status.Signal().String()
		}
		say(news{Ended: pid, How: how})
	}
}
