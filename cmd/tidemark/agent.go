package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/containerd"
	"github.com/tidemark-edge/tidemark/containerd/store"
	"github.com/tidemark-edge/tidemark/internal/boot"
	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/reconciler/gitsource"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
	"github.com/tidemark-edge/tidemark/twin/leaf"
	"github.com/tidemark-edge/tidemark/twin/outbox"
)

func newAgent() *cobra.Command {
	var config configFlags
	var log logging
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent of this device",
		Long: `Run the agent of this device in the foreground: it holds the device at what the
fleet repository declares, until it gets SIGTERM or SIGINT. Modules keep running
when the agent ends, however it ends, and the next agent takes them over as they
are.

Under systemd use Type=notify, and KillMode=process so that modules stay.`,
		Example: "  tidemark agent --config /etc/tidemark/agent.cue\n  TIDEMARK_HUB_URL=tls://hub.example.com:7422 tidemark agent",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			logger, err := log.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			c, err := config.agent()
			if err != nil {
				return err
			}
			return runAgent(cmd.Context(), c, logger)
		},
	}
	config.flags(cmd, defaultAgentConfig)
	log.flags(cmd)
	return cmd
}

// runAgent connects the parts of an agent, and runs them until ctx ends.
func runAgent(ctx context.Context, config schema.AgentConfig, log *slog.Logger) (err error) {
	if err := keepSecrets(); err != nil {
		return err
	}
	unlock, err := lockDir(config.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	warn := func(component string) func(error) {
		return func(err error) { log.Warn(err.Error(), "component", component) }
	}

	verifier, err := signing.New(config.Images, config.Registries, filepath.Join(config.StateDir, "evidence"))
	if err != nil {
		return err
	}
	verifier.Broken = warn("signing")
	source, err := openSource(config.StateDir, config.Repository)
	if err != nil {
		return err
	}
	defer source.Close()

	runtime, err := containerd.Open(config.Containerd)
	if err != nil {
		return err
	}
	defer runtime.Close()
	runtime.Images.Registries, runtime.Images.Reserve = config.Registries, config.Disk.Reserve
	runtime.StateDir, runtime.RunDir = config.StateDir, config.RunDir
	runtime.HostMounts, runtime.HostNetwork = config.HostMounts, config.HostNetwork
	runtime.LogBytes, runtime.Warn = int64(config.Logs.MaxBytes), warn("containerd")

	report := &reporter{news: make(chan struct{}, 1)}
	bootID, _ := boot.ID() // empty where the kernel does not tell: no start of the agent counts as a boot then
	r := &reconciler.Reconciler{
		Device: config.Device, StateDir: config.StateDir, Poll: time.Duration(config.Repository.Poll), Log: log,
		Boot:   bootID,
		Agent:  schema.AgentInfo{Version: version, Platform: platform(), VerifyCommits: config.Repository.Verify},
		Source: source, Verifier: verifier, Runtime: runtime, Store: stock{runtime.Images, verifier}, Reporter: report,
		Renderer: sandboxAt(config.Repository.Path), Permits: permits(config, runtime), Output: runtime,
	}
	l, err := leaf.Open(ctx, leaf.Config{
		Device: config.Device, StateDir: config.StateDir, RunDir: config.RunDir,
		Listen: config.Leaf.Listen, Hub: config.Hub, MaxStore: storeFor(config.Outbox), Warn: warn("leaf"),
		Grants: config.Grants, Signal: runtime.Signal,
		Noted: func(e leaf.OverrideEvent) { r.Note(overrideEvent(e)); report.changed() },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()

	runtime.Identity, runtime.Attach = l.Identity, l.Attach
	r.Prober = probers{runtime, l}

	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	spread := hints{look: r.Moved}
	queues := &post{warn: warn("outbox"), again: 10 * time.Second, open: func(ctx context.Context) (*messages, error) {
		return openOutbox(ctx, l, config, spread.heard, warn("outbox"))
	}}
	defer func() { err = errors.Join(err, queues.close()) }()
	view := around{config: config, leaf: l, post: queues, clock: &wallClock{synchronized: kernelSynchronized}}
	view.clock.wrote(newestWritten(l))
	report.inner, report.route, report.look = l, queues.route, view.look
	m := methods{leaf: l, reconciler: r, permits: r.Permits, look: view.look}
	if err := m.handle(); err != nil {
		return err
	}
	opened := queues.try(ctx)
	parts.Go(func() { queues.run(ctx, opened) })
	if config.Hub != nil {
		parts.Go(func() {
			news := linkNews{log: log, kick: queues.kick, moved: r.Moved}
			l.WatchLink(ctx, func(up bool) { news.changed(up, time.Now()); report.changed() })
		})
	}
	parts.Go(func() { runtime.Watch(ctx, r.Kick) })
	parts.Go(func() { runtime.Daemon().Guard(ctx, warn("containerd")) })
	parts.Go(func() { runtime.KeepLogs(ctx) })
	parts.Go(func() { logMended(ctx, source, log) })
	parts.Go(func() { settle(ctx) })
	parts.Go(func() { report.watch(ctx, warn("twin")) })
	log.Info("agent started", "device", config.Device, "version", version, "leaf", l.ClientURL())
	notify("READY=1")
	err = r.Run(ctx)
	notify("STOPPING=1")
	log.Info("agent stops; modules keep running")
	return err
}

// openSource opens the fleet repository's copy in stateDir, with the commit
// verification that it asks for.
func openSource(stateDir string, repo schema.Repository) (*gitsource.Source, error) {
	var commits gitsource.CommitVerifier
	if repo.Verify == schema.VerifySigned {
		c, err := signing.NewCommits(repo.AllowedSigners)
		if err != nil {
			return nil, err
		}
		commits = c
	}
	return gitsource.Open(filepath.Join(stateDir, "git"), repo, commits)
}

// stock is the images, which take their evidence along when they are pruned.
type stock struct {
	*store.Store
	evidence *signing.Verifier
}

// Prune implements reconciler.Store.
func (s stock) Prune(ctx context.Context, keep []schema.Image) error {
	return errors.Join(s.Store.Prune(ctx, keep), s.evidence.Prune(keep))
}

// logMended says what the source found damaged and set aside.
func logMended(ctx context.Context, source *gitsource.Source, log *slog.Logger) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		for _, note := range source.Mended() {
			log.Warn(note, "component", "gitsource")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// permits says why a definition may not be this device's, whatever was reviewed:
// its owner does not allow what a module asks for, or its routes do not fit.
func permits(config schema.AgentConfig, runtime *containerd.Runtime) func(schema.Desired) error {
	return func(desired schema.Desired) error {
		return cmp.Or(
			runtime.Permits(desired),
			leaf.Permits(desired, config.Grants),
			outbox.Permits(desired.Routes, int64(config.Outbox.MaxBytes)),
		)
	}
}

// storeFor is what JetStream may take on disk: the outbox's bound, and room for
// what it writes before it drops the oldest.
func storeFor(config schema.OutboxConfig) int64 { return int64(config.MaxBytes) + 64<<20 }
