package specification

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tidemark-edge/tidemark/containerd/account"
	"github.com/tidemark-edge/tidemark/schema"
)

// identityTarget is where a module finds its credential.
const identityTarget = "/run/tidemark"

// Mounts makes what a module mounts beyond the standard: its network's files,
// its identity, its volumes, tmpfs and host paths. Sources exist afterwards.
// The order is by path, so that a mount below another comes after it.
func (h Host) Mounts(module schema.Module, u account.IDs, identity string) ([]specs.Mount, error) {
	mounts, err := h.networkFiles(module)
	if err != nil {
		return nil, err
	}
	if identity != "" {
		mounts = append(mounts, bind(identity, identityTarget, true, "noexec"))
	}
	for _, target := range slices.Sorted(maps.Keys(module.Mounts)) {
		if err := checkTarget(target); err != nil {
			return nil, err
		}
		m, err := h.mount(module.Name, target, module.Mounts[target], u)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", target, err)
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// mount makes one declared mount.
func (h Host) mount(module, target string, m schema.Mount, u account.IDs) (specs.Mount, error) {
	switch {
	case m.Volume != "" && m.Tmpfs == 0 && m.Host == "":
		dir, err := h.volume(module, m.Volume, u)
		return bind(dir, target, m.ReadOnly), err
	case m.Tmpfs > 0 && m.Volume == "" && m.Host == "":
		return tmpfs(target, m), nil
	case m.Host != "" && m.Volume == "" && m.Tmpfs == 0:
		source, err := h.hostPath(m.Host)
		return bind(source, target, m.ReadOnly), err
	}
	return specs.Mount{}, errors.New("want exactly one of volume, tmpfs and host")
}

// bind is never recursive: what is mounted below source stays outside, and so
// read-only is read-only throughout.
func bind(source, target string, readOnly bool, more ...string) specs.Mount {
	options := []string{"bind", "rprivate", "nosuid", "nodev"}
	if readOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: append(options, more...)}
}

func tmpfs(target string, m schema.Mount) specs.Mount {
	options := []string{"nosuid", "nodev", "noexec", "mode=1777", "size=" + strconv.FormatInt(int64(m.Tmpfs), 10)}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: target, Type: "tmpfs", Source: "tmpfs", Options: options}
}

// checkTarget refuses mount points that would undo what the specification
// protects.
func checkTarget(target string) error {
	if !path.IsAbs(target) || path.Clean(target) != target || target == "/" || strings.ContainsRune(target, 0) {
		return fmt.Errorf("mount %q: want a clean absolute path below /", target)
	}
	for _, reserved := range []string{"/proc", "/sys", identityTarget, "/etc/hosts", "/etc/resolv.conf"} {
		if isWithin(target, reserved) {
			return fmt.Errorf("mount %s: %s is reserved", target, reserved)
		}
	}
	if target == "/dev" || target == "/run" {
		return fmt.Errorf("mount %s: it would hide what the agent puts there; mount a path below it", target)
	}
	return nil
}

// isWithin reports whether path is dir or below it; both clean.
func isWithin(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// errNoHostPath says that a host path is not there, for now.
var errNoHostPath = errors.New("is not on this device")

// hostPath resolves a host path and checks it against HostMounts. What is
// mounted is what was checked: the path without any symbolic link.
func (h Host) hostPath(host string) (string, error) {
	if !filepath.IsAbs(host) || filepath.Clean(host) != host {
		return "", fmt.Errorf("host path %q: want a clean absolute path", host)
	}
	source, err := filepath.EvalSymlinks(host)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("host path %s %w", host, errNoHostPath)
	}
	if err != nil {
		return "", fmt.Errorf("host path: %w", err)
	}
	for _, allowed := range h.HostMounts {
		if resolved, err := filepath.EvalSymlinks(allowed); err == nil && isWithin(source, resolved) {
			return source, nil
		}
	}
	if source != host {
		return "", fmt.Errorf("host path %s is really %s, which this device does not allow: its owner may add it to hostMounts", host, source)
	}
	return "", fmt.Errorf("host path %s is not allowed on this device: its owner may add it to hostMounts", host)
}

// Renew makes again, for a module that is to run again, what it mounts and what may
// be gone since it was made, and looks again at what it mounts of the host.
func (h Host) Renew(module, network string, mounts []specs.Mount) error {
	if network == schema.NetworkNone {
		if _, err := h.hostsFile(module); err != nil {
			return fmt.Errorf("hosts file: %w", err)
		}
	}
	return h.checkSources(mounts)
}

// checkSources looks again, before a container runs again, whether the host
// paths that it was made with are still themselves: what can write to an
// allowed directory could have put a symbolic link in their place.
func (h Host) checkSources(mounts []specs.Mount) error {
	for _, m := range mounts {
		switch {
		case m.Type != "bind", isWithin(m.Source, h.StateDir):
			continue
		case m.Destination == identityTarget, m.Destination == "/etc/hosts", m.Destination == "/etc/resolv.conf":
			continue // ours; no module can declare one there
		}
		source, err := h.hostPath(m.Source)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		if source != m.Source {
			return fmt.Errorf("mount %s: host path %s has become a link to %s", m.Destination, m.Source, source)
		}
	}
	return nil
}

// makeDir makes a directory of ours that only root enters.
func makeDir(dir string) error { return os.MkdirAll(dir, 0o711) }
