package containerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/tidemark-edge/tidemark/containerd/probe"
	"github.com/tidemark-edge/tidemark/internal/netns"
	"github.com/tidemark-edge/tidemark/schema"
)

// defaultProbeTimeout is for probes that were not loaded through their schema.
const defaultProbeTimeout = time.Second

// Probe asks a running container once whether its module works; nil is yes. c
// is as observed. The time that p allows is the module's: what it takes to run
// a command in the container counts apart. An error that wraps
// schema.ErrNotAsked says nothing about the module: the question did not
// reach it.
func (r *Runtime) Probe(ctx context.Context, c schema.Container, p schema.Probe) error {
	if ctx.Err() != nil {
		return fmt.Errorf("probe %s: %w: %w", c.ID, schema.ErrNotAsked, context.Cause(ctx))
	}
	outer := ctx
	timeout := cmp.Or(time.Duration(p.Timeout), defaultProbeTimeout)
	var err error
	if p.Exec != nil {
		err = r.probeExec(ctx, c, *p.Exec, timeout)
	} else {
		ctx, cancel := context.WithTimeoutCause(ctx, timeout, noAnswer(timeout))
		defer cancel()
		switch {
		case p.HTTP != nil:
			err = probe.HTTP(ctx, r.dialer(c), *p.HTTP)
		case p.TCP != nil:
			err = probe.TCP(ctx, r.dialer(c), *p.TCP)
		default:
			err = errors.New("probe: a container can be asked by exec, http and tcp; by nats it is the leaf that asks")
		}
	}
	if err != nil && errors.Is(outer.Err(), context.Canceled) {
		return fmt.Errorf("%w: %w", schema.ErrNotAsked, err)
	}
	return err
}

// noAnswer says that a module took too long.
func noAnswer(timeout time.Duration) error { return fmt.Errorf("no answer within %v", timeout) }

// dialer connects to the loopback that the container's processes see.
func (r *Runtime) dialer(c schema.Container) probe.Dialer {
	return func(ctx context.Context, port int) (conn net.Conn, err error) {
		namespace, err := r.openNetwork(c)
		if err != nil {
			return nil, err
		}
		defer namespace.Close()
		err = netns.Do(namespace, func() error {
			dialer := net.Dialer{KeepAlive: -1}
			conn, err = dialer.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			return err
		})
		return conn, err
	}
}

// openNetwork opens the network namespace of a container's first process. A
// process that has that process's number by now is told from it by its start.
func (r *Runtime) openNetwork(c schema.Container) (*os.File, error) {
	r.mu.Lock()
	known, ok := r.met[c.ID]
	r.mu.Unlock()
	if !ok || known.pid != c.PID || c.PID == 0 {
		return nil, fmt.Errorf("%w: it does not run", schema.ErrNotAsked)
	}
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.PID))
	if err != nil {
		return nil, fmt.Errorf("%w: its network namespace: %w", schema.ErrNotAsked, err)
	}
	if start, err := processStart(c.PID); err != nil || start != known.start {
		namespace.Close()
		return nil, fmt.Errorf("%w: it does not run any more", schema.ErrNotAsked)
	}
	return namespace, nil
}
