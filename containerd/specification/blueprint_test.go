package specification

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tidemark-edge/tidemark/containerd/account"
	"github.com/tidemark-edge/tidemark/schema"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// representative uses everything that a definition can say about a container.
func representative(network string) Blueprint {
	return Blueprint{
		Module: schema.Module{
			Name: "sensor", Image: "registry.example.com/sensor@sha256:" + schema.Image(strings.Repeat("0", 64)), Network: network,
			Args:   []string{"--rate", "5s"},
			Env:    map[string]string{"B": "module", "A": "module", "PATH": "/opt/bin"},
			Limits: schema.Limits{Memory: 64 << 20, CPU: 0.25, PIDs: 32},
		},
		Image: ocispec.ImageConfig{
			Entrypoint: []string{"/sensor"}, Cmd: []string{"--rate", "1m"}, User: "sensor", WorkingDir: "srv/",
			Env:    []string{"PATH=/usr/bin:/bin", "Z=image", "B=image", "TIDEMARK_URL=image", "broken"},
			Labels: map[string]string{"io.containerd.runc.v2.group": "evil"}, StopSignal: "SIGUSR1",
			Volumes: map[string]struct{}{"/v": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}},
		},
		User: account.IDs{UID: 1000, GID: 1001, Groups: []uint32{20, 44}}, Cgroup: "/tidemark/sensor.01234567", Swap: true, Files: maxFiles,
		Env: map[string]string{"TIDEMARK_URL": "nats://127.0.0.1:4222", "TIDEMARK_IDENTITY": "/devices/hannover01/modules/sensor"},
		Mounts: []specs.Mount{
			bind("/run/tidemark/modules/sensor", identityTarget, true, "noexec"),
			tmpfs("/cache", schema.Mount{Tmpfs: 1 << 20}),
			bind("/var/lib/tidemark/volumes/sensor/state", "/data", false),
		},
	}
}

// The specification is a promise: whoever changes it sees what changes.
func TestSpecificationIsAsReviewed(t *testing.T) {
	for _, network := range []string{schema.NetworkNone, schema.NetworkHost} {
		t.Run(network, func(t *testing.T) {
			spec, err := representative(network).Specification()
			if err != nil {
				t.Fatal(err)
			}
			// The profile depends on the architecture; TestSeccomp looks at it.
			spec.Linux.Seccomp = nil
			got, err := json.MarshalIndent(spec, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", network+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("go test -update rewrites it, if this is meant: %s", diff)
			}
		})
	}
}

func TestSeccomp(t *testing.T) {
	spec, err := representative(schema.NetworkNone).Specification()
	if err != nil {
		t.Fatal(err)
	}
	profile := spec.Linux.Seccomp
	if profile.DefaultAction != specs.ActErrno {
		t.Errorf("what is not listed: %s", profile.DefaultAction)
	}
	allowed := func(call string) bool {
		return slices.ContainsFunc(profile.Syscalls, func(s specs.LinuxSyscall) bool {
			return s.Action == specs.ActAllow && len(s.Args) == 0 && slices.Contains(s.Names, call)
		})
	}
	for _, call := range []string{"read", "execve", "openat", "connect", "futex"} {
		if !allowed(call) {
			t.Errorf("%s is refused", call)
		}
	}
	for _, call := range []string{
		"mount", "umount2", "setns", "unshare", "bpf", "keyctl", "add_key", "init_module", "kexec_load", "reboot",
		"pivot_root", "open_by_handle_at", "perf_event_open", "io_uring_setup", "swapon", "settimeofday", "personality", "userfaultfd",
	} {
		if allowed(call) {
			t.Errorf("%s is allowed", call)
		}
	}
}

func TestSpecificationRefuses(t *testing.T) {
	for name, change := range map[string]func(*Blueprint){
		"no command":         func(b *Blueprint) { b.Image.Entrypoint, b.Image.Cmd, b.Module.Args = nil, nil, nil },
		"an empty command":   func(b *Blueprint) { b.Image.Entrypoint = []string{""} },
		"NUL in args":        func(b *Blueprint) { b.Module.Args = []string{"a\x00b"} },
		"NUL in env":         func(b *Blueprint) { b.Module.Env = map[string]string{"A": "\x00"} },
		"= in a name":        func(b *Blueprint) { b.Module.Env = map[string]string{"A=B": "c"} },
		"no name":            func(b *Blueprint) { b.Module.Env = map[string]string{"": "c"} },
		"no name, image":     func(b *Blueprint) { b.Image.Env = []string{"=x"} },
		"NUL in image's env": func(b *Blueprint) { b.Image.Env = []string{"A=\x00"} },
	} {
		b := representative(schema.NetworkNone)
		change(&b)
		if _, err := b.Specification(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestSpecificationOfLittle(t *testing.T) {
	b := Blueprint{Module: schema.Module{Name: "m", Network: schema.NetworkNone}, Image: ocispec.ImageConfig{Cmd: []string{"/m"}, WorkingDir: "../../x/.."}}
	s, err := b.Specification()
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Linux.Resources; r.Memory != nil || r.CPU != nil || r.Pids != nil {
		t.Errorf("limits that nobody set: %+v", r)
	}
	if s.Process.Cwd != "/" || len(s.Process.Args) != 1 || s.Process.Env[0] != "PATH="+defaultPath {
		t.Errorf("%+v", s.Process)
	}
	b.Module.Limits = schema.Limits{CPU: 1e-9, Memory: 1}
	if s, err = b.Specification(); err != nil || *s.Linux.Resources.CPU.Quota != minQuota || s.Linux.Resources.Memory.Swap != nil {
		t.Errorf("%+v, %v", s.Linux.Resources, err)
	}
}
