package containerd

import (
	"cmp"
	"fmt"
	"syscall"

	"github.com/tidemark-edge/tidemark/schema"
	"golang.org/x/sys/unix"
)

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
	return 0, fmt.Errorf("stop signal %q: want one as in SIGTERM or SIGINT", name)
}
