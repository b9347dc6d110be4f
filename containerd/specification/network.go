package specification

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tidemark-edge/tidemark/schema"
)

// CheckNetwork says whether the device's owner lets the module use the
// network that it asks for.
func (h Host) CheckNetwork(module schema.Module) error {
	switch module.Network {
	case schema.NetworkNone:
		return nil
	case schema.NetworkHost:
		if slices.Contains(h.HostNetwork, module.Name) || slices.Contains(h.HostNetwork, "*") {
			return nil
		}
		return fmt.Errorf("network %q is not allowed for it on this device: its owner may add %q to hostNetwork", module.Network, module.Name)
	}
	return fmt.Errorf("network %q: want %q or %q", module.Network, schema.NetworkNone, schema.NetworkHost)
}

// networkFiles mounts /etc/hosts and, on the host's network, its
// /etc/resolv.conf. An image has none that is any good.
func (h Host) networkFiles(module schema.Module) ([]specs.Mount, error) {
	if module.Network == schema.NetworkNone {
		hosts, err := h.hostsFile(module.Name)
		return []specs.Mount{bind(hosts, "/etc/hosts", true, "noexec")}, err
	}
	var mounts []specs.Mount
	for _, file := range []string{"/etc/hosts", "/etc/resolv.conf"} {
		source, err := filepath.EvalSymlinks(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, bind(source, file, true, "noexec"))
	}
	return mounts, nil
}

// hostsFile writes the /etc/hosts of a module that has only a loopback.
func (h Host) hostsFile(module string) (string, error) {
	dir := filepath.Join(h.StateDir, "hosts")
	if err := makeDir(dir); err != nil {
		return "", err
	}
	file := filepath.Join(dir, module)
	content := fmt.Sprintf("127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.0.1\t%s\n", module)
	if old, err := os.ReadFile(file); err == nil && string(old) == content {
		return file, nil
	}
	return file, os.WriteFile(file, []byte(content), 0o644)
}
