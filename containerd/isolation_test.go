package containerd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

const passwd = "root:x:0:0::/:\napp:x:1000:1001::/:\n99999999999:x:0:0::/:\n"

// confinement is what a module sees of what the specification says.
func confinement(s *stage) {
	s.Identity = identity(s.t)
	s.image = s.push(s.t, "app", map[string]string{"etc/passwd": passwd, "etc/group": "app:x:1001:\ndialout:x:20:app\n"},
		v1.Config{Entrypoint: []string{"/main"}, Cmd: []string{"wait"}, User: "app", WorkingDir: "/srv", Env: []string{"FROM=image", "BOTH=image"}})
	m := s.module("sensor")
	m.Env = map[string]string{"BOTH": "module", "TIDEMARK_URL": "nats://elsewhere"}
	m.Mounts = map[string]schema.Mount{"/data": {Volume: "state"}, "/cache": {Tmpfs: 1 << 20}}
	r := s.report(m)

	if r.UID != 1000 || r.GID != 1001 || !slices.Contains(r.Groups, 20) || r.PID != 1 || r.Hostname != "sensor" || r.Cwd != "/srv" {
		s.t.Errorf("is %d:%d %v, pid %d on %q in %s", r.UID, r.GID, r.Groups, r.PID, r.Hostname, r.Cwd)
	}
	if diff := cmp.Diff([]string{"/main", "report"}, r.Args); diff != "" {
		s.t.Error(diff)
	}
	wantEnv := []string{"FROM=image", "BOTH=module", "TIDEMARK_URL=nats://127.0.0.1:4222"}
	for _, e := range wantEnv {
		if !slices.Contains(r.Env, e) {
			s.t.Errorf("no %s in %q", e, r.Env)
		}
	}
	for field, want := range map[string]string{
		"NoNewPrivs": "1", "Seccomp": "2", "CapBnd": strings.Repeat("0", 16), "CapEff": strings.Repeat("0", 16),
		"CapPrm": strings.Repeat("0", 16), "CapInh": strings.Repeat("0", 16), "CapAmb": strings.Repeat("0", 16),
	} {
		if r.Status[field] != want {
			s.t.Errorf("%s is %q, want %q", field, r.Status[field], want)
		}
	}
	if r.OOMScoreAdj != "0" {
		s.t.Errorf("oom_score_adj is %s", r.OOMScoreAdj)
	}
	wantDevices := []string{"fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}
	if _, err := os.Stat("/proc/kcore"); err == nil {
		wantDevices = append([]string{"core"}, wantDevices...) // runc's link to it, and it is masked
	}
	if diff := cmp.Diff(wantDevices, r.Devices); diff != "" {
		s.t.Error(diff)
	}
	for what, want := range map[string]bool{
		"unshare": false, "mount": false, "sethostname": false, "chown": false, "kcore": false, "sysrq": false, "mknod": false,
		"identity": false, "rootfs": false, "volume": true, "hosts": true, "credential": true,
	} {
		if got := r.Tries[what] == "ok"; got != want {
			s.t.Errorf("%s: %s", what, r.Tries[what])
		}
	}
	for _, line := range r.Mounts {
		if f := strings.Fields(line); f[1] == "/data" || f[1] == "/cache" || f[1] == "/run/tidemark" {
			if o := strings.Split(f[3], ","); !slices.Contains(o, "nosuid") || !slices.Contains(o, "nodev") {
				s.t.Errorf("mounted %s", line)
			}
		}
	}
}

// identity makes a credential as the wiring does.
func identity(t testing.TB) func(context.Context, string, uint32, uint32) (string, map[string]string, error) {
	run := t.TempDir()
	return func(_ context.Context, module string, uid, gid uint32) (string, map[string]string, error) {
		dir := filepath.Join(run, module)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", nil, err
		}
		seed := filepath.Join(dir, "identity.nk")
		if err := os.WriteFile(seed, []byte("seed"), 0o600); err != nil {
			return "", nil, err
		}
		return dir, map[string]string{"TIDEMARK_URL": "nats://127.0.0.1:4222"}, os.Chown(seed, int(uid), int(gid))
	}
}

// Root in a container is not root on the device, either.
func rootless(s *stage) {
	r := s.report(s.module("sensor"))
	if r.UID != 0 || r.Status["CapEff"] != strings.Repeat("0", 16) {
		s.t.Errorf("uid %d with %s", r.UID, r.Status["CapEff"])
	}
	for _, what := range []string{"unshare", "mount", "sethostname", "kcore", "sysrq", "mknod"} {
		if r.Tries[what] == "ok" {
			s.t.Errorf("%s was allowed", what)
		}
	}
}

func networkNone(s *stage) {
	attached := make(chan string, 1)
	s.Attach = func(_ context.Context, module string, pid int) error {
		if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || strings.HasPrefix(string(cmdline), "/main") {
			s.t.Errorf("attached when the module runs already: %q, %v", cmdline, err)
		}
		attached <- inNetwork(s.t, pid)
		return nil
	}
	r := s.report(s.module("sensor"))
	if interfaces := <-attached; interfaces != "lo" {
		s.t.Errorf("Attach saw %q", interfaces)
	}
	if len(r.Interfaces) != 1 || !strings.Contains(r.Interfaces["lo"], "up") {
		s.t.Errorf("interfaces %v", r.Interfaces)
	}

	refuse := fmt.Errorf("no room")
	s.Attach = func(context.Context, string, int) error { return refuse }
	m := s.module("other")
	if err := s.Start(s.ctx, m, "c", proof(s.t, m.Image)); err == nil || !strings.Contains(err.Error(), "no room") {
		s.t.Errorf("Attach's refusal became %v", err)
	}
	if c, err := s.look("other"); err == nil {
		s.t.Errorf("it left %+v", c)
	}
}

func networkHost(s *stage) {
	m := s.module("sensor", "wait")
	m.Network = schema.NetworkHost
	p := proof(s.t, m.Image)
	if err := s.Pull(s.ctx, p); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Start(s.ctx, m, "c", p); err == nil || !strings.Contains(err.Error(), "hostNetwork") {
		s.t.Errorf("the host's network was given: %v", err)
	}
	s.HostNetwork = []string{"other", "sensor"}
	r := s.report(m)
	if len(s.attached) != 0 {
		s.t.Errorf("attached %v", s.attached)
	}
	c := s.find("sensor")
	if own, _ := os.Readlink("/proc/self/ns/net"); own != readlink(s.t, fmt.Sprintf("/proc/%d/ns/net", c.PID)) {
		s.t.Error("it is not on the host's network")
	}
	if r.Tries["hosts"] != "ok" {
		s.t.Errorf("/etc/hosts: %s", r.Tries["hosts"])
	}
}

func readlink(t testing.TB, name string) string {
	t.Helper()
	s, err := os.Readlink(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hostMounts(s *stage) {
	allowed, secret := s.t.TempDir(), s.t.TempDir()
	os.Mkdir(filepath.Join(allowed, "in"), 0o777)
	os.Chmod(filepath.Join(allowed, "in"), 0o777)
	os.Symlink(secret, filepath.Join(allowed, "out"))
	s.HostMounts = []string{allowed, "/nowhere"}
	p := proof(s.t, s.image)
	if err := s.Pull(s.ctx, p); err != nil {
		s.t.Fatal(err)
	}
	for host, why := range map[string]string{
		secret: "not allowed", filepath.Join(allowed, "out"): "is really", allowed + "/../" + filepath.Base(secret): "clean",
		allowed + "x": "not on this device", "relative": "absolute", "/": "not allowed", "/nowhere": "not on this device",
	} {
		m := s.module("sensor", "wait")
		m.Mounts = map[string]schema.Mount{"/data": {Host: host}}
		if err := s.Start(s.ctx, m, "c", p); err == nil || !strings.Contains(err.Error(), why) {
			s.t.Errorf("mount of %s: %v, want %q", host, err, why)
		}
	}
	if o, _ := s.Observe(s.ctx); len(o.Containers) != 0 {
		s.t.Errorf("refusals left %+v", o)
	}
	m := s.module("sensor")
	m.Mounts = map[string]schema.Mount{"/data": {Host: filepath.Join(allowed, "in")}}
	if r := s.report(m); r.Tries["volume"] != "ok" {
		s.t.Errorf("an allowed mount: %s", r.Tries["volume"])
	}
	if _, err := os.Stat(filepath.Join(allowed, "in", "x")); err != nil {
		s.t.Error(err)
	}
	// What can write to the allowed folder must not redirect a later mount.
	c := s.find("sensor")
	syscall.Kill(c.PID, syscall.SIGKILL)
	s.await("sensor", schema.StateExited)
	os.Rename(filepath.Join(allowed, "in"), filepath.Join(allowed, "was"))
	os.Symlink(secret, filepath.Join(allowed, "in"))
	if err := s.Restart(s.ctx, c.ID, 1); err == nil || !strings.Contains(err.Error(), "is really") {
		s.t.Errorf("restarted onto a link: %v", err)
	}
}

func limits(s *stage) {
	m := s.module("sensor", "wait")
	m.Limits = schema.Limits{Memory: 64 << 20, CPU: 0.5, PIDs: 50}
	c := s.run(m)
	for _, l := range []struct{ controller, one, two, want string }{
		{"memory", "memory.limit_in_bytes", "memory.max", "67108864"},
		{"pids", "pids.max", "pids.max", "50"},
	} {
		if got := s.cgroupFile(c.ID, l.controller, l.one, l.two); got != l.want {
			s.t.Errorf("%s is %s, want %s", l.one, got, l.want)
		}
	}
	if got := s.cgroupFile(c.ID, "cpu", "cpu.cfs_quota_us", "cpu.max"); got != "50000" && got != "50000 100000" {
		s.t.Errorf("cpu quota is %s", got)
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"); err == nil {
		if got := s.cgroupFile(c.ID, "memory", "memory.memsw.limit_in_bytes", ""); got != "67108864" {
			s.t.Errorf("memory and swap is %s", got)
		}
	}
}

func volumes(s *stage) {
	m := s.module("sensor")
	m.User = "2000:2001"
	m.Mounts = map[string]schema.Mount{"/data": {Volume: "state"}}
	if r := s.report(m); r.UID != 2000 || r.GID != 2001 || r.Tries["volume"] != "ok" {
		s.t.Errorf("%d:%d, %s", r.UID, r.GID, r.Tries["volume"])
	}
	s.remove("sensor")
	file := filepath.Join(s.StateDir, "volumes", "sensor", "state", "x")
	os.Symlink("/etc/passwd", filepath.Join(filepath.Dir(file), "link"))
	m.User = "3000:3001"
	os.Truncate(filepath.Join(s.StateDir, "logs", "sensor.log"), 0)
	if r := s.report(m); r.Tries["volume"] != "ok" {
		s.t.Errorf("the next version cannot write what the former one wrote: %s", r.Tries["volume"])
	}
	var st syscall.Stat_t
	if err := syscall.Stat(file, &st); err != nil || st.Uid != 3000 || st.Gid != 3001 {
		s.t.Errorf("%s belongs to %d:%d, %v", file, st.Uid, st.Gid, err)
	}
	if err := syscall.Stat("/etc/passwd", &st); err != nil || st.Uid != 0 {
		s.t.Errorf("/etc/passwd belongs to %d", st.Uid)
	}
	s.remove("sensor")
	if _, err := os.Stat(file); err != nil {
		s.t.Errorf("the volume went with the container: %v", err)
	}
}

// A number too large for an id is no name, though the image has one like it
// (CVE-2026-46680).
func wrongUsers(s *stage) {
	for _, u := range []string{"99999999999", "nosuch", "-1", "4294967296"} {
		s.image = s.push(s.t, "wrong", map[string]string{"etc/passwd": passwd}, v1.Config{Entrypoint: []string{"/main"}, User: u})
		p := proof(s.t, s.image)
		if err := s.Pull(s.ctx, p); err != nil {
			s.t.Fatal(err)
		}
		m := s.module("sensor")
		if err := s.Start(s.ctx, m, "c", p); err == nil || !strings.Contains(err.Error(), "user") {
			s.t.Errorf("USER %s: %v", u, err)
		}
	}
	m := s.module("sensor", "wait")
	m.User = "1000" // its group is in the image
	s.run(m)
	var st syscall.Stat_t
	if err := syscall.Stat(fmt.Sprintf("/proc/%d", s.find("sensor").PID), &st); err != nil || st.Uid != 1000 || st.Gid != 1001 {
		s.t.Errorf("it runs as %d:%d, %v", st.Uid, st.Gid, err)
	}
}

func unproven(s *stage) {
	m := s.module("sensor", "wait")
	other := s.push(s.t, "other", nil, v1.Config{})
	for name, p := range map[string]signing.Verified{"no proof": {}, "a proof of another image": proof(s.t, other)} {
		if err := s.Start(s.ctx, m, "c", p); err == nil || !strings.Contains(err.Error(), "no proof") {
			s.t.Errorf("started with %s: %v", name, err)
		}
	}
	if err := s.Pull(s.ctx, signing.Verified{}); err == nil {
		s.t.Error("pulled with no proof")
	}
	if err := s.Start(s.ctx, m, "c", proof(s.t, m.Image)); err == nil || !strings.Contains(err.Error(), "pull it first") {
		s.t.Errorf("started what is not on the disk: %v", err)
	}
}
