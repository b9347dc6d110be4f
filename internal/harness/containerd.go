package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// ContainerdVersions are the lines of containerd that Tidemark supports; the
// runtime's tests run on each.
var ContainerdVersions = []string{"1.6", "2"}

// Daemon is a containerd of the test's own.
type Daemon struct {
	Version string // one of ContainerdVersions
	Address string // its socket
	Dir     string // holds its root, state and log
	Runc    string // the runc binary, for schema.ContainerdConfig.Runc

	t      testing.TB
	binary string
	proc   *Process
}

const daemonConfig = `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri"]
[grpc]
  address = %q
[ttrpc]
  address = %q
`

// DaemonConfig is the content of a containerd's configuration file: where it keeps
// what survives a reboot and what does not, and its socket.
func DaemonConfig(root, state, address string) string {
	return fmt.Sprintf(daemonConfig, root, state, address, address+".ttrpc")
}

// Containerd starts a containerd of that version. When the test ends, so do
// the daemon and every shim and container left in it.
func Containerd(t testing.TB, version string) *Daemon {
	t.Helper()
	d := &Daemon{Version: version, Dir: shortDir(t), Runc: Tool(t, "runc"), t: t, binary: Tool(t, "containerd-"+version)}
	d.Address = filepath.Join(d.Dir, "c.sock")
	config := DaemonConfig(filepath.Join(d.Dir, "root"), filepath.Join(d.Dir, "state"), d.Address)
	if err := os.WriteFile(filepath.Join(d.Dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.cleanUp)
	d.Start()
	return d
}

// Start runs the daemon, which must not be running, and waits until it answers.
func (d *Daemon) Start() {
	d.t.Helper()
	cmd := exec.Command(d.binary, "--config", filepath.Join(d.Dir, "config.toml"), "--log-level", "info")
	// The daemon finds its shim beside itself, and the shim finds runc, by PATH.
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(d.binary)+":"+filepath.Dir(d.Runc)+":"+os.Getenv("PATH"))
	d.proc = Start(d.t, d.Dir, cmd)
	Eventually(d.t, func() error {
		if err := d.proc.ended(); err != nil {
			return err
		}
		conn, err := net.Dial("unix", d.Address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// Kill ends the daemon with SIGKILL. Its shims and containers stay.
func (d *Daemon) Kill() { d.proc.Stop(syscall.SIGKILL) }

// Restart kills the daemon and starts it again.
func (d *Daemon) Restart() { d.t.Helper(); d.Kill(); d.Start() }

// cleanUp ends what is left: the daemon, then each shim and process of its
// containers, known by the daemon's directory in their command line or cgroup
// bundle, then the mounts.
func (d *Daemon) cleanUp() {
	if d.proc != nil {
		d.proc.Stop(syscall.SIGTERM)
		d.proc.printLog()
	}
	for _, pid := range shims(d.Address) {
		killTree(pid)
	}
	unmountBelow(d.t, d.Dir)
}

// shims finds the shims that serve the daemon at address.
func shims(address string) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && strings.Contains(string(cmdline), "-address\x00"+address) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killTree kills the process and all that descend from it, children first.
func killTree(pid int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for _, child := range strings.Fields(string(b)) {
			var c int
			if _, err := fmt.Sscanf(child, "%d", &c); err == nil {
				killTree(c)
			}
		}
	}
	syscall.Kill(pid, syscall.SIGKILL)
}

// unmountBelow unmounts everything below dir, deepest first.
func unmountBelow(t testing.TB, dir string) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Error(err)
		return
	}
	lines := strings.Split(string(b), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		f := strings.Fields(lines[i])
		if len(f) < 2 || !strings.HasPrefix(f[1], dir+"/") {
			continue
		}
		if err := syscall.Unmount(f[1], syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			t.Errorf("unmount %s: %v", f[1], err)
		}
	}
}
