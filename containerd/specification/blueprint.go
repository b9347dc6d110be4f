package specification

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/containerd/account"
	"github.com/tidemark-edge/tidemark/schema"
)

// Blueprint is all that a module's OCI specification is made from.
type Blueprint struct {
	Module schema.Module
	Image  ocispec.ImageConfig // the image's own wishes
	User   account.IDs         // of the first process
	Cgroup string              // the path of its control group
	Mounts []specs.Mount       // beyond the standard ones; see Host.Mounts
	Env    map[string]string   // stronger than image and module
	Swap   bool                // the kernel accounts for swap
	Files  uint64              // open files that a process may ask for at most; see FileLimit
}

// Version of the OCI specification: the oldest one that has all that we write.
const Version = "1.0.2"

// Specification is the whole OCI specification of a module: nothing in it
// comes from a default of a library but the seccomp profile. The root
// filesystem stays writable, because images expect it; what is written goes
// with the container.
func (b Blueprint) Specification() (*specs.Spec, error) {
	args, err := b.args()
	if err != nil {
		return nil, err
	}
	env, err := b.environment()
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:  Version,
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: b.Module.Name,
		Process: &specs.Process{
			Args:            args,
			Env:             env,
			Cwd:             path.Clean("/" + b.Image.WorkingDir),
			User:            specs.User{UID: b.User.UID, GID: b.User.GID, AdditionalGids: b.User.Groups},
			Capabilities:    noCapabilities(),
			NoNewPrivileges: true,
			// Soft as everywhere; programs that need more raise it themselves.
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: min(1024, b.Files), Hard: b.Files}},
			// The shim is protected from the out-of-memory killer; a module must
			// not inherit that.
			OOMScoreAdj: new(int),
		},
		Mounts: append(standardMounts(), b.Mounts...),
		Linux: &specs.Linux{
			CgroupsPath:   b.Cgroup,
			Namespaces:    namespacesOf(b.Module.Network),
			Resources:     b.resources(),
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: readonlyPaths,
		},
	}
	s.Linux.Seccomp = seccomp.DefaultProfile(s) // looks at the capabilities
	return s, nil
}

// args are the image's entry point, and the module's arguments in place of the
// image's command.
func (b Blueprint) args() ([]string, error) {
	args := slices.Clone(b.Image.Entrypoint)
	if len(b.Module.Args) > 0 {
		args = append(args, b.Module.Args...)
	} else {
		args = append(args, b.Image.Cmd...)
	}
	if len(args) == 0 || args[0] == "" {
		return nil, errors.New("the image has neither entry point nor command: set args")
	}
	for _, a := range args {
		if strings.ContainsRune(a, 0) {
			return nil, errors.New("args hold a NUL byte")
		}
	}
	return args, nil
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is the image's in its order, then the module's, then the
// identity's, each by name; the later one wins, and no name appears twice.
func (b Blueprint) environment() ([]string, error) {
	value := map[string]string{"PATH": defaultPath}
	order := []string{"PATH"}
	set := func(name, v string) error {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(v, 0) {
			return fmt.Errorf("environment variable %q: want a name without = and no NUL byte", name)
		}
		if _, ok := value[name]; !ok {
			order = append(order, name)
		}
		value[name] = v
		return nil
	}
	for _, e := range b.Image.Env {
		if name, v, ok := strings.Cut(e, "="); ok {
			if err := set(name, v); err != nil {
				return nil, fmt.Errorf("image: %w", err)
			}
		}
	}
	for _, env := range []map[string]string{b.Module.Env, b.Env} {
		for _, name := range slices.Sorted(maps.Keys(env)) {
			if err := set(name, env[name]); err != nil {
				return nil, err
			}
		}
	}
	env := make([]string, len(order))
	for i, name := range order {
		env[i] = name + "=" + value[name]
	}
	return env, nil
}

// noCapabilities takes all of them, from root as well.
func noCapabilities() *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{
		Bounding: []string{}, Effective: []string{}, Inheritable: []string{}, Permitted: []string{}, Ambient: []string{},
	}
}

func namespacesOf(network string) []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
		{Type: specs.MountNamespace}, {Type: specs.CgroupNamespace},
	}
	if network == schema.NetworkNone {
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	return ns
}

const (
	cpuPeriod = 100_000 // µs
	minQuota  = 1_000   // µs; the kernel takes no less
)

// resources are the limits. Swap counts as memory, so that a module cannot
// evade its limit; where the kernel does not account for swap, runc refuses
// to limit it. No device is allowed here: runc adds the standard ones.
func (b Blueprint) resources() *specs.LinuxResources {
	limits := b.Module.Limits
	res := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	if limits.Memory > 0 {
		bytes := int64(limits.Memory)
		res.Memory = &specs.LinuxMemory{Limit: &bytes}
		if b.Swap {
			res.Memory.Swap = &bytes
		}
	}
	if limits.CPU > 0 {
		period, quota := uint64(cpuPeriod), int64(math.Ceil(min(limits.CPU, 1<<20)*cpuPeriod))
		quota = max(quota, minQuota)
		res.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	if limits.PIDs > 0 {
		res.Pids = &specs.LinuxPids{Limit: &limits.PIDs}
	}
	return res
}

func standardMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
}

// What containerd and Docker hide, or protect, in /proc and /sys.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/scsi",
		"/proc/sched_debug", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// maxFiles is systemd's default for the hard limit of open files.
const maxFiles = 524288

// FileLimit is the hard limit of open files for modules: maxFiles, or what
// this machine grants where that is less.
func FileLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 4096 // the kernel's own default
	}
	return min(uint64(limit.Max), maxFiles)
}
