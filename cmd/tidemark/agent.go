package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
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

// runAgent runs an agent until ctx ends. Its parts are opened in this order, and closed
// in the reverse one.
func runAgent(ctx context.Context, config schema.AgentConfig, log *slog.Logger) (err error) {
	a := &agent{config: config, log: log, report: &reporter{news: make(chan struct{}, 1)}}
	defer func() { err = errors.Join(err, a.close()) }()
	for _, open := range []func(context.Context) error{
		func(context.Context) error { return keepSecrets() },
		a.lock,         // the state directory is this process's alone
		a.openVerifier, // who is trusted
		a.openSource,   // the fleet repository
		a.openRuntime,  // containerd
		a.makeReconciler,
		a.openLeaf,   // modules come back to their twins
		a.openOutbox, // and to their queues, where the disk lets them
		a.answer,     // people
	} {
		if err := open(ctx); err != nil {
			return err
		}
	}
	log.Info("agent started", "device", config.Device, "version", version, "leaf", a.leaf.ClientURL())
	notify("READY=1")
	err = a.run(ctx)
	notify("STOPPING=1")
	log.Info("agent stops; modules keep running")
	return err
}

// agent is an agent's parts.
type agent struct {
	config schema.AgentConfig
	log    *slog.Logger
	ends   []func() error // of what is open, in the order in which it was opened

	verifier   *signing.Verifier
	source     *gitsource.Source
	runtime    *containerd.Runtime
	reconciler *reconciler.Reconciler
	report     *reporter
	leaf       *leaf.Leaf
	queues     *post
	opened     error // why the queues could not be at once; nil when they are
	view       around
}

func (a *agent) close() (err error) {
	for _, end := range slices.Backward(a.ends) {
		err = errors.Join(err, end())
	}
	return err
}

// warn logs what a component says that no call returns.
func (a *agent) warn(component string) func(error) {
	return func(err error) { a.log.Warn(err.Error(), "component", component) }
}

func (a *agent) lock(context.Context) error {
	unlock, err := lockDir(a.config.StateDir)
	if err == nil {
		a.ends = append(a.ends, func() error { unlock(); return nil })
	}
	return err
}

func (a *agent) openVerifier(context.Context) (err error) {
	a.verifier, err = signing.New(a.config.Images, a.config.Registries, filepath.Join(a.config.StateDir, "evidence"))
	if err == nil {
		a.verifier.Broken = a.warn("signing")
	}
	return err
}

func (a *agent) openSource(context.Context) (err error) {
	a.source, err = openSource(a.config.StateDir, a.config.Repository)
	if err == nil {
		a.ends = append(a.ends, a.source.Close)
	}
	return err
}

func (a *agent) openRuntime(context.Context) (err error) {
	if a.runtime, err = containerd.Open(a.config.Containerd); err != nil {
		return err
	}
	a.ends = append(a.ends, a.runtime.Close)
	r, c := a.runtime, a.config
	r.Images.Registries, r.Images.Reserve = c.Registries, c.Disk.Reserve
	r.StateDir, r.RunDir = c.StateDir, c.RunDir
	r.HostMounts, r.HostNetwork = c.HostMounts, c.HostNetwork
	r.LogBytes, r.Warn = int64(c.Logs.MaxBytes), a.warn("containerd")
	return nil
}

func (a *agent) makeReconciler(context.Context) error {
	bootID, _ := boot.ID() // empty where the kernel does not tell: no start of the agent counts as a boot then
	c := a.config
	a.reconciler = &reconciler.Reconciler{
		Device: c.Device, StateDir: c.StateDir, Poll: time.Duration(c.Repository.Poll), Log: a.log,
		Boot:   bootID,
		Agent:  schema.AgentInfo{Version: version, Platform: platform(), VerifyCommits: c.Repository.Verify},
		Source: a.source, Verifier: a.verifier, Runtime: a.runtime, Store: stock{a.runtime.Images, a.verifier}, Reporter: a.report,
		Renderer: sandboxAt(c.Repository.Path), Permits: permits(c, a.runtime), Output: a.runtime,
	}
	return nil
}

func (a *agent) openLeaf(ctx context.Context) (err error) {
	c := a.config
	a.leaf, err = leaf.Open(ctx, leaf.Config{
		Device: c.Device, StateDir: c.StateDir, RunDir: c.RunDir,
		Listen: c.Leaf.Listen, Hub: c.Hub, MaxStore: storeFor(c.Outbox), Warn: a.warn("leaf"),
		Grants: c.Grants, Signal: a.runtime.Signal,
		Noted: func(e leaf.OverrideEvent) { a.reconciler.Note(overrideEvent(e)); a.report.changed() },
	})
	if err != nil {
		return err
	}
	a.ends = append(a.ends, a.leaf.Close)
	a.runtime.Identity, a.runtime.Attach = a.leaf.Identity, a.leaf.Attach
	a.reconciler.Prober = probers{a.runtime, a.leaf}
	return nil
}

// openOutbox opens the queues. Modules run, too, where that fails: run tries again.
func (a *agent) openOutbox(ctx context.Context) error {
	spread := hints{look: a.reconciler.Moved}
	a.queues = &post{warn: a.warn("outbox"), again: 10 * time.Second, open: func(ctx context.Context) (*messages, error) {
		return openOutbox(ctx, a.leaf, a.config, spread.heard, a.warn("outbox"))
	}}
	a.ends = append(a.ends, a.queues.close)
	a.view = around{config: a.config, leaf: a.leaf, post: a.queues, clock: &wallClock{synchronized: kernelSynchronized}}
	a.view.clock.wrote(newestWritten(a.leaf))
	a.report.inner, a.report.route, a.report.look, a.report.relink = a.leaf, a.queues.route, a.view.look, a.leaf.Relink
	a.opened = a.queues.try(ctx)
	return nil
}

func (a *agent) answer(context.Context) error {
	return methods{leaf: a.leaf, reconciler: a.reconciler, permits: a.reconciler.Permits, look: a.view.look}.handle()
}

// run has the parts work until ctx ends, and returns when they have ended.
func (a *agent) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	parts.Go(func() { a.queues.run(ctx, a.opened) })
	if a.config.Hub != nil {
		parts.Go(func() {
			news := linkNews{log: a.log, kick: a.queues.kick, moved: a.reconciler.Moved}
			a.leaf.WatchLink(ctx, func(up bool) { news.changed(up, time.Now()); a.report.changed() })
		})
	}
	parts.Go(func() { a.runtime.Watch(ctx, a.reconciler.Kick) })
	parts.Go(func() { a.runtime.Daemon().Guard(ctx, a.warn("containerd")) })
	parts.Go(func() { a.runtime.KeepLogs(ctx) })
	parts.Go(func() { logMended(ctx, a.source, a.log) })
	parts.Go(func() { settle(ctx) })
	parts.Go(func() { a.report.watch(ctx, a.warn("twin")) })
	return a.reconciler.Run(ctx)
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
