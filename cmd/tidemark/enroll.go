package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/twin/leaf"
)

func newEnroll() *cobra.Command {
	var out output
	var config configFlags
	cmd := &cobra.Command{
		Use:   "enroll",
		Short: "Show this device's public identity, to be committed",
		Long: `Show the public key of this device. Its seed is made at the first call, stays in
the agent's state directory and never leaves the device.

The hub admits exactly the devices whose keys the fleet repository names: commit
the line that is printed to the device's definition to enrol it, and remove it to
revoke it.`,
		Example: "  tidemark enroll --config agent.cue",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := config.agent()
			if err != nil {
				return err
			}
			identity, err := leaf.DeviceIdentity(c.StateDir)
			if err != nil {
				return err
			}
			return out.print(cmd, map[string]string{"device": c.Device, "identity": identity}, func(w io.Writer) {
				fmt.Fprintf(w, "device: identity: %q\n", identity)
			})
		},
	}
	out.flag(cmd)
	config.flags(cmd, defaultAgentConfig)
	return cmd
}
