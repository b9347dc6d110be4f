package containerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/schema"
)

// maxEnded bounds what is kept of the reason for a Stop, in bytes. containerd
// takes no label longer than 4096.
const maxEnded = 1024

// Stop ends the process of a container as its definition says, and keeps the
// container: Observe then shows its exit, with reason as Ended, until Restart
// runs it again. The reason is on the disk before the signal is sent, so that
// an agent that is killed between the two knows why the process ended. What has
// no process is left as it is, and so is one that is not there. An error can
// come after the signal; calling again goes on.
func (r *Runtime) Stop(ctx context.Context, id, reason string) error {
	unlock, err := r.busy.Lock(ctx, id)
	if err != nil {
		return fmt.Errorf("stop %s: %w", id, err)
	}
	defer unlock()
	if err := r.stop(ctx, id, reason); err != nil {
		return fmt.Errorf("stop %s: %w", id, err)
	}
	return nil
}

// stop does so for who holds id.
func (r *Runtime) stop(ctx context.Context, id, reason string) error {
	container, err := r.client.ContainerService().Get(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for its container: %w", err)
	}
	if _, ours := readRecord(container); !ours {
		return errors.New("it was not made by this agent: remove it")
	}
	p, err := r.process(ctx, id)
	if err != nil {
		return err
	}
	switch p.GetStatus() {
	case task.Status_RUNNING, task.Status_PAUSED, task.Status_PAUSING:
	case task.Status_UNKNOWN: // its shim does not answer, or there is none
		if p == nil {
			return nil
		}
	default:
		return nil
	}
	if err := r.note(ctx, id, map[string]string{labelEnded: endedLabel(reason)}); err != nil {
		return fmt.Errorf("record the reason: %w", err)
	}
	sig, grace := howToStop(container)
	return r.endProcess(ctx, p, sig, grace)
}

// endedLabel bounds a reason and makes it what a label can hold: valid UTF-8,
// and not empty, which would be no label.
func endedLabel(reason string) string {
	reason = strings.ToValidUTF8(reason, "�")
	if len(reason) > maxEnded {
		cut := maxEnded - len("…")
		for !utf8.RuneStart(reason[cut]) {
			cut--
		}
		reason = reason[:cut] + "…"
	}
	return cmp.Or(reason, "stopped")
}

// stopOf is how to end a module, with what its definition leaves open.
func stopOf(s schema.Stop) schema.Stop {
	s.Signal = cmp.Or(s.Signal, "SIGTERM")
	return s
}

// parseSignal reads "SIGTERM".
func parseSignal(name string) (syscall.Signal, error) {
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("signal %q: want one as in SIGTERM or SIGINT", name)
}
