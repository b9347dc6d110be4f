package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tidemark-edge/tidemark/containerd/cgroup"
)

// runcState is where runc shims have runc keep its state, by namespace and id.
const runcState = "/run/containerd/runc"

// bury ends what still runs of a container whose task is gone, so that a module
// never runs twice. When a shim dies, containerd has runc end the container's
// processes; when that fails, or takes longer than 5 s, it forgets the task all
// the same. What runc remembers of the container goes, too, or it would refuse
// to make it again. Where nothing was left behind this costs a look at a few
// directories.
func (r *Runtime) bury(ctx context.Context, id string) error {
	state := filepath.Join(runcState, r.config.Namespace, id)
	groups := cgroup.Dirs(cgroup.Path(r.config.Namespace, id))
	if _, err := os.Stat(state); len(groups) == 0 && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// A task is ended by its shim, which knows best.
	if err := r.endTask(ctx, id, syscall.SIGKILL, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	for {
		left, err := cgroup.EndMembers(groups)
		if err != nil {
			return fmt.Errorf("end what its shim has left behind: %w", err)
		}
		if left == 0 {
			break
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return fmt.Errorf("end what its shim has left behind: %d processes do not end", left)
		}
	}
	for _, dir := range groups {
		_ = os.Remove(dir) // an empty group is in nobody's way
	}
	if strings.HasPrefix(r.config.Runtime, "io.containerd.runc.") {
		if err := os.RemoveAll(state); err != nil {
			return fmt.Errorf("clean up after its shim: %w", err)
		}
	}
	return nil
}
