package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/containerd"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin/leaf"
)

// probers ask a module in the way that its probe says: through the leaf, or in
// its container.
type probers struct {
	runtime *containerd.Runtime
	leaf    *leaf.Leaf
}

// Probe implements reconciler.Prober.
func (p probers) Probe(ctx context.Context, c schema.Container, probe schema.Probe) error {
	if probe.NATS == nil {
		return p.runtime.Probe(ctx, c, probe)
	}
	timeout := time.Duration(probe.Timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	return p.leaf.Probe(ctx, c.Module, probe.NATS.Method)
}
