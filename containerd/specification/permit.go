package specification

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tidemark-edge/tidemark/schema"
)

// Permits says whether the device's owner lets every module that shall run
// have the network and the mounts that it asks for. Making a container
// refuses the same; but by then the container that was replaced is gone. A host path that is not there
// is no matter of permission: it may come.
func (h Host) Permits(desired schema.Desired) error {
	for _, m := range desired.Modules {
		if m.Status == schema.StatusStopped {
			continue
		}
		if err := h.permits(m); err != nil {
			return fmt.Errorf("module %s: %w", m.Name, err)
		}
	}
	return nil
}

func (h Host) permits(module schema.Module) error {
	if err := h.CheckNetwork(module); err != nil {
		return err
	}
	for _, target := range slices.Sorted(maps.Keys(module.Mounts)) {
		if err := checkTarget(target); err != nil {
			return err
		}
		host := module.Mounts[target].Host
		if host == "" {
			continue
		}
		if _, err := h.hostPath(host); err != nil && !errors.Is(err, errNoHostPath) {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	return nil
}
