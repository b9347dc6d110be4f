package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/containerd"
	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/reconciler/gitsource"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
	"github.com/tidemark-edge/tidemark/twin"
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

	l, err := leaf.Open(ctx, leaf.Config{
		Device: config.Device, StateDir: config.StateDir, RunDir: config.RunDir,
		Listen: config.Leaf.Listen, Hub: config.Hub, MaxStore: storeFor(config.Outbox), Warn: warn("leaf"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()

	runtime, err := containerd.Open(config.Containerd)
	if err != nil {
		return err
	}
	defer runtime.Close()
	runtime.StateDir, runtime.Registries = config.StateDir, config.Registries
	runtime.HostMounts, runtime.HostNetwork = config.HostMounts, config.HostNetwork
	runtime.Identity, runtime.Attach = l.Identity, l.Attach

	r := &reconciler.Reconciler{
		Device: config.Device, StateDir: config.StateDir, Poll: time.Duration(config.Repository.Poll), Log: log,
		Agent:  schema.AgentInfo{Version: version, Platform: platform(), VerifyCommits: config.Repository.Verify},
		Source: source, Verifier: verifier, Runtime: stock{runtime, verifier}, Reporter: l,
		Renderer: sandboxAt(config.Repository.Path),
	}
	if err := handleMethods(l, r); err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	messages, err := openOutbox(ctx, l, config, warn("outbox"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, messages.close()) }()
	if config.Hub != nil {
		if err := messages.onFleetMoved(r.Moved); err != nil {
			return err
		}
		parts.Go(func() {
			l.WatchLink(ctx, func(up bool) {
				log.Info("link to the hub", "up", up)
				if up {
					messages.Kick()
					r.Moved()
				}
			})
		})
	}
	parts.Go(func() { runtime.Watch(ctx, r.Kick) })
	parts.Go(func() { logMended(ctx, source, log) })
	parts.Go(func() { settle(ctx) })
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

// stock is the runtime, which takes the evidence along when it prunes images.
type stock struct {
	*containerd.Runtime
	evidence *signing.Verifier
}

// Prune implements reconciler.Runtime.
func (s stock) Prune(ctx context.Context, keep []schema.Image) error {
	return errors.Join(s.Runtime.Prune(ctx, keep), s.evidence.Prune(keep))
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

// messages is the outbox with the connections that it works on.
type messages struct {
	*outbox.Outbox
	local, hub *nats.Conn // hub is nil when the device stands alone
}

// openOutbox starts to take modules' messages in, and to pass them on where
// there is a hub.
func openOutbox(ctx context.Context, l *leaf.Leaf, config schema.AgentConfig, warn func(error)) (*messages, error) {
	m := &messages{}
	var err error
	if m.local, err = l.Connect("outbox"); err != nil {
		return nil, err
	}
	if config.Hub != nil {
		if m.hub, err = l.ConnectHub("outbox"); err != nil {
			m.local.Close()
			return nil, err
		}
	}
	m.Outbox, err = outbox.Open(ctx, m.local, m.hub, outbox.Config{
		Device: config.Device, MaxBytes: int64(config.Outbox.MaxBytes), TTL: time.Duration(config.Outbox.TTL), Twins: l, Warn: warn,
	})
	if err != nil {
		m.hangUp()
		return nil, err
	}
	return m, nil
}

// onFleetMoved calls f when the hub says that the repository has a new commit.
func (m *messages) onFleetMoved(f func()) error {
	_, err := m.hub.Subscribe(twin.FleetMoved, func(*nats.Msg) { f() })
	return err
}

func (m *messages) close() error {
	defer m.hangUp()
	return m.Outbox.Close()
}

func (m *messages) hangUp() {
	m.local.Close()
	if m.hub != nil {
		m.hub.Close()
	}
}

// storeFor is what JetStream may take on disk: the outbox's bound, and room for
// what it writes before it drops the oldest.
func storeFor(config schema.OutboxConfig) int64 { return int64(config.MaxBytes) + 64<<20 }

// handleMethods answers the commands of people on this device.
func handleMethods(l *leaf.Leaf, r *reconciler.Reconciler) error {
	methods := map[string]func(context.Context, []byte) ([]byte, error){
		methodStatus: func(context.Context, []byte) ([]byte, error) { return json.Marshal(r.Report()) },
		methodPlan: func(ctx context.Context, body []byte) ([]byte, error) {
			var desired schema.Desired
			if err := json.Unmarshal(body, &desired); err != nil {
				return nil, &twin.Error{Code: twin.CodeMalformed, Message: err.Error()}
			}
			plan, err := r.Preview(ctx, desired)
			if err != nil {
				return nil, err
			}
			if plan == nil {
				plan = reconciler.Plan{}
			}
			return json.Marshal(plan)
		},
		methodReconcile: func(context.Context, []byte) ([]byte, error) { r.Moved(); return []byte("{}"), nil },
	}
	for name, f := range methods {
		if err := l.Handle(name, f); err != nil {
			return err
		}
	}
	return nil
}

// lockDir makes the directory, and makes this process the only agent or hub
// that works in it.
func lockDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("state directory %s: another tidemark works in it: %w", dir, err)
	}
	return func() { f.Close() }, nil
}
