package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/hub"
	"github.com/tidemark-edge/tidemark/schema"
)

func newHub() *cobra.Command {
	var config configFlags
	var log logging
	cmd := &cobra.Command{
		Use:   "hub",
		Short: "Run the hub that devices report to",
		Long: `Run the hub in the foreground: a NATS server with JetStream (or the server or
cluster that the configuration names) that keeps the twins and the messages of all
devices, and admits exactly the devices whose keys the fleet repository names.

The hub holds no truth: lose it, and the devices fill it again.`,
		Example: "  tidemark hub --config /etc/tidemark/hub.cue",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			logger, err := log.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			c, err := config.hub()
			if err != nil {
				return err
			}
			return runHub(cmd.Context(), c, logger)
		},
	}
	config.flags(cmd, defaultHubConfig)
	log.flags(cmd)
	return cmd
}

// runHub runs a hub until ctx ends.
func runHub(ctx context.Context, config schema.HubConfig, log *slog.Logger) (err error) {
	if err := keepSecrets(); err != nil {
		return err
	}
	unlock, err := lockDir(config.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	source, err := openSource(config.StateDir, config.Repository)
	if err != nil {
		return err
	}
	defer source.Close()
	h, err := hub.Open(ctx, hub.Config{
		HubConfig: config,
		Source:    source,
		Devices: func(ctx context.Context, tree fs.FS) ([]schema.Entry, error) {
			return sandboxAt("").Devices(ctx, tree)
		},
		Warn: func(err error) { log.Warn(err.Error(), "component", "hub") },
		Moved: func(revision schema.Revision, devices map[string]string) {
			log.Info("fleet repository", "commit", revision.Short(), "subject", revision.Subject, "admitted", len(devices))
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	log.Info("hub started", "version", version, "clients", h.ClientURL(), "devices", h.LeafAddress())
	notify("READY=1")
	err = h.Run(ctx)
	notify("STOPPING=1")
	return err
}
