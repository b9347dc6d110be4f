package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

func newVerify() *cobra.Command {
	var out output
	var config configFlags
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Say whether an image may run on this device, and why",
		Long: `Verify the signature of an image, host/repository@sha256:digest, against the
rules of this device's configuration, as the agent does. Evidence that is on the
device's disk is used before the registry is asked.

Exits with 3 when the image may not run here, and with 1 when that cannot be
known because the registry cannot be asked.`,
		Example: "  tidemark verify registry.example.com/sensor@sha256:…",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			image, err := schema.ParseImage(args[0])
			if err != nil {
				return &exitError{exitUsage, err}
			}
			c, err := config.agent()
			if err != nil {
				return err
			}
			verifier, err := signing.New(c.Images, c.Registries, filepath.Join(c.StateDir, "evidence"))
			if err != nil {
				return err
			}
			verified, err := verifier.Verify(cmd.Context(), image)
			var refused *signing.RefusedError
			if errors.As(err, &refused) {
				return &exitError{exitNo, err}
			}
			if err != nil {
				return err
			}
			e := verified.Evidence()
			return out.print(cmd, e, func(w io.Writer) {
				fmt.Fprintf(w, "image\t%s\nsigner\t%s\nrule\t%s\nformat\t%s\nverified\t%s\n", e.Image, e.Signer, e.Rule, e.Format, e.Verified.Format(time.RFC3339))
			})
		},
	}
	out.flag(cmd)
	config.flags(cmd, defaultAgentConfig)
	return cmd
}
