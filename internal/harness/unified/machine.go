// Package unified runs a package's tests on a machine that has control groups of
// version 2 only, as current distributions have them, wherever the tests are
// started. The machine is QEMU's, and many times slower than this one where hardware
// does not help; its kernel is Debian's. It sees this machine's files, read-only: the
// tools, the sources, the compiler. What it writes is on a disk of its own and goes
// with it.
//
// The first program of the machine is in the folder init.
package unified

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/internal/harness/unified/order"
)

// modules of the kernel that tests need: the machine's disk and files, and what
// Debian's containerd and runc want of a kernel. crc32c is ext4's, by a name that
// its file does not tell.
var modules = []string{"virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "9p", "9pnet_virtio", "overlay", "loop", "xfs"}

// Machine is how large the machine is.
type Machine struct {
	Accelerator string // QEMU's name of it; tcg needs no support by the hardware
	Processors  int
	MemoryMB    int
	DiskMB      int // taken from the outer machine as it is written to
}

// Tests are some of a package's tests.
type Tests struct {
	Package string   // its folder in the source tree
	Args    []string // flags, as go test takes them with the prefix "test."
}

// Run runs tests in the machine, one package after the other until one fails, and
// returns what they printed, which it copies to progress line by line. The test
// fails when they do.
func (m Machine) Run(t testing.TB, progress io.Writer, tests ...Tests) string {
	t.Helper()
	dir := t.TempDir()
	disk, programs := m.disk(t, dir, tests)
	linux := harness.Tool(t, "linux")
	kernel := filepath.Dir(filepath.Dir(linux)) // it is in boot, beside lib
	files, names := kernelModules(t, kernel)
	tools := filepath.Dir(filepath.Dir(kernel))
	folders := strings.Split(strings.TrimSpace(run(t, "go", "env", "GOCACHE", "GOMODCACHE", "GOROOT")), "\n")
	orders, err := json.Marshal(order.Order{
		Modules:  names,
		Keep:     append(folders, harness.Root(), tools),
		Overlay:  map[string]string{folders[0]: filepath.Join(order.Disk, "cache")},
		Programs: programs,
		Env:      environment(),
	})
	if err != nil {
		t.Fatal(err)
	}
	first := filepath.Join(dir, "init")
	build(t, "build", "-o", first, "./internal/harness/unified/init")
	files = append(files, file{name: "init", source: first}, file{name: order.File, content: orders})
	initial := filepath.Join(dir, "initrd")
	if err := writeArchive(initial, files); err != nil {
		t.Fatal(err)
	}
	return m.boot(t, progress, linux, initial, disk)
}

// disk makes the machine's disk with the compiled tests on it, and says how they
// are run.
func (m Machine) disk(t testing.TB, dir string, tests []Tests) (disk string, programs []order.Program) {
	t.Helper()
	content := filepath.Join(dir, "disk")
	if err := os.Mkdir(content, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, tests := range tests {
		name := strings.ReplaceAll(tests.Package, "/", "-") + ".test"
		build(t, "test", "-c", "-o", filepath.Join(content, name), "./"+tests.Package)
		programs = append(programs, order.Program{
			Dir:  filepath.Join(harness.Root(), tests.Package),
			Args: append([]string{filepath.Join(order.Disk, name)}, tests.Args...),
		})
	}
	disk = filepath.Join(dir, "disk.img")
	run(t, "mke2fs", "-q", "-t", "ext4", "-d", content, disk, strconv.Itoa(m.DiskMB)+"M")
	return disk, programs
}

// environment is what programs in the machine find: this one's paths, and no
// network to fetch anything from.
func environment() []string {
	env := []string{"TIDEMARK_PATIENCE=20m", "GOPROXY=off", "GOFLAGS=-buildvcs=false", "GOTOOLCHAIN=local", "LANG=C"}
	for _, name := range []string{"PATH", "HOME", "GOPATH", "GOROOT", "GOCACHE", "GOMODCACHE", "XDG_CACHE_HOME", "TIDEMARK_TOOLS"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// boot runs the machine until it turns itself off.
func (m Machine) boot(t testing.TB, progress io.Writer, kernel, initial, disk string) string {
	t.Helper()
	console := filepath.Join(t.TempDir(), "console.log")
	qemu := exec.Command("qemu-system-x86_64", "-accel", m.Accelerator, "-cpu", "max",
		"-smp", strconv.Itoa(m.Processors), "-m", strconv.Itoa(m.MemoryMB),
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "file:"+console, "-serial", "stdio",
		"-drive", "if=virtio,format=raw,cache=unsafe,file="+disk,
		"-virtfs", "local,path=/,security_model=none,readonly=on,multidevs=remap,mount_tag="+order.Outer,
		"-kernel", kernel, "-initrd", initial,
		"-append", "console=ttyS0 panic=-1 loglevel=4 cgroup_no_v1=all mitigations=off")
	out, err := qemu.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	qemu.Stderr = &complaints
	// It ends with this process, and so with this thread, however they end.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := qemu.Start(); err != nil {
		t.Fatalf("%v: install Debian's qemu-system-x86", err)
	}
	t.Cleanup(func() { qemu.Process.Kill() })
	var printed strings.Builder
	last := ""
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			last = line
			fmt.Fprintln(&printed, line)
			fmt.Fprintln(progress, line)
		}
		if err != nil {
			break
		}
	}
	if err := qemu.Wait(); err != nil {
		t.Errorf("qemu: %v", err)
	}
	if last != order.Ended+" 0" {
		log, _ := os.ReadFile(console)
		t.Errorf("the machine's last words are %q, QEMU's %q, and its kernel's:\n%s", last, complaints.String(), log[max(0, len(log)-4<<10):])
	}
	return printed.String()
}

// build runs the go command in the source tree as the tests do that build programs
// in the machine: without the C library, which is bound to this machine's release.
func build(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = harness.Root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// run runs a command and returns what it prints.
func run(t testing.TB, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}
