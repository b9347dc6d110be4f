package containerd

import (
	"context"
	"fmt"
	"os"

	"github.com/tidemark-edge/tidemark/internal/netns"
	"github.com/tidemark-edge/tidemark/schema"
)

// connect prepares the network of a process that has not run yet.
func (r *Runtime) connect(ctx context.Context, rec record, pid int) error {
	if rec.network != schema.NetworkNone {
		return nil
	}
	if err := loopbackUp(pid); err != nil {
		return err
	}
	if r.Attach == nil {
		return nil
	}
	if err := r.Attach(ctx, rec.module, pid); err != nil {
		return fmt.Errorf("attach its network: %w", err)
	}
	return nil
}

// loopbackUp brings up lo in the network namespace of pid. runc does so, too,
// but nothing obliges a runtime to.
func loopbackUp(pid int) error {
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err == nil {
		defer namespace.Close()
		err = netns.Do(namespace, netns.LoopbackUp)
	}
	if err != nil {
		return fmt.Errorf("bring up the loopback: %w", err)
	}
	return nil
}
