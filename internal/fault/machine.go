package fault

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/netns"
)

// Machine is what a device's processes take for their machine, from a boot to the
// loss of power: namespaces of their own for processes, mounts and network, a boot
// id, and clocks that begin at the boot. All of it goes with its first process.
type Machine struct {
	PID int // of its first process, on the real machine

	t      testing.TB
	hosts  string     // its /etc/hosts
	giving sync.Mutex // one order at a time
	orders *json.Encoder
	answer chan reply

	mu    sync.Mutex
	ended map[int]string // processes that are no more, by their number inside, and how they ended
	off   chan struct{}  // closed when the machine is no more
}

// reply is what machine/main.go says.
type reply struct {
	PID   int
	Ended int
	How   string
	Error string
}

// boot starts a machine. dir holds its files; keep is the loop device of its disk.
func boot(t testing.TB, dir, keep string) *Machine {
	t.Helper()
	id, hosts := filepath.Join(dir, "boot_id"), filepath.Join(dir, "hosts")
	content, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err == nil {
		err = errors.Join(os.RemoveAll(id), os.WriteFile(id, content, 0o444), os.WriteFile(hosts, nil, 0o644))
	}
	var up, mono unix.Timespec
	err = errors.Join(err, unix.ClockGettime(unix.CLOCK_BOOTTIME, &up), unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc",
		"--time", "--boottime", strconv.FormatInt(1-int64(up.Sec), 10), "--monotonic", strconv.FormatInt(1-int64(mono.Sec), 10),
		program(t, "machine"), id, hosts, keep)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	m := &Machine{t: t, hosts: hosts, orders: json.NewEncoder(stdin), answer: make(chan reply, 1), ended: map[int]string{}, off: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends the death signal when the thread that forked ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		m.listen(json.NewDecoder(bufio.NewReader(stdout)))
		cmd.Wait()
		stdin.Close()
		close(m.off)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.answer:
	case <-m.off:
		t.Fatalf("boot: %v: %s", cmd.ProcessState, stderr.String())
	}
	child, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	if err == nil {
		m.PID, err = strconv.Atoi(strings.TrimSpace(string(child)))
	}
	if err != nil {
		t.Fatalf("boot: %v", err)
	}
	return m
}

// listen sorts what the machine says.
func (m *Machine) listen(said *json.Decoder) {
	for {
		var r reply
		if said.Decode(&r) != nil {
			return
		}
		m.mu.Lock()
		if r.Ended != 0 {
			m.ended[r.Ended] = r.How
		} else {
			delete(m.ended, r.PID) // of an earlier process of that number
		}
		m.mu.Unlock()
		if r.Ended == 0 {
			m.answer <- r
		}
	}
}

// PowerOff ends every process of the machine at once, and with them its
// namespaces. It may be called again.
func (m *Machine) PowerOff() {
	syscall.Kill(m.PID, syscall.SIGKILL)
	<-m.off
}

// order gives one order. What is off does not answer.
func (m *Machine) order(o map[string]any) reply {
	m.giving.Lock()
	defer m.giving.Unlock()
	if m.orders.Encode(o) != nil {
		return reply{Error: "the machine is off"}
	}
	select {
	case r := <-m.answer:
		return r
	case <-m.off:
		return reply{Error: "the machine is off"}
	}
}

// start starts a program, with its output in the file log, and returns its number
// inside the machine; 0 when the machine is off.
func (m *Machine) start(log string, env []string, args ...string) int {
	m.t.Helper()
	r := m.order(map[string]any{"Args": args, "Env": env, "Log": log})
	if r.Error != "" {
		if m.isOff() {
			return 0
		}
		m.t.Fatalf("start %s: %s", args[0], r.Error)
	}
	if r.PID <= 1 {
		m.t.Fatalf("start %s: it has the number %d", args[0], r.PID)
	}
	return r.PID
}

// signal signals a process by its number inside. One that has ended is not found.
func (m *Machine) signal(pid int, sig syscall.Signal) {
	m.order(map[string]any{"PID": pid, "Signal": int(sig)})
}

// end is how a process ended, by its number inside; empty while it runs.
func (m *Machine) end(pid int) string {
	if m.isOff() {
		return "the machine is off"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended[pid]
}

func (m *Machine) isOff() bool {
	select {
	case <-m.off:
		return true
	default:
		return false
	}
}

// within calls f on a thread in the machine's network. What f opens stays there.
func (m *Machine) within(f func() error) error {
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.PID))
	if err != nil {
		return err
	}
	defer namespace.Close()
	return netns.Do(namespace, f)
}

// Interfaces are the machine's that are up, but for its loopback. Without one there
// is no route to anywhere.
func (m *Machine) Interfaces() (up []string, err error) {
	err = m.within(func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 {
				up = append(up, i.Name)
			}
		}
		return err
	})
	return up, err
}

// Dial connects to an address inside the machine.
func (m *Machine) Dial(network, address string) (conn net.Conn, err error) {
	err = m.within(func() error {
		conn, err = net.DialTimeout(network, address, 10*time.Second)
		return err
	})
	return conn, err
}
