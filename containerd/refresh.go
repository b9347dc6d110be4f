package containerd

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tidemark-edge/tidemark/schema"
)

// refresh makes again what a container mounts and what may be gone since it
// was made: after a reboot there is no identity.
func (r *Runtime) refresh(ctx context.Context, container containers.Container, rec record) error {
	if _, _, err := r.identity(ctx, rec); err != nil {
		return err
	}
	if rec.network == schema.NetworkNone {
		if _, err := r.hostsFile(rec.module); err != nil {
			return fmt.Errorf("hosts file: %w", err)
		}
	}
	var spec specs.Spec
	if err := json.Unmarshal(container.Spec.GetValue(), &spec); err != nil {
		return fmt.Errorf("read its specification: %w", err)
	}
	return r.checkSources(spec.Mounts)
}
