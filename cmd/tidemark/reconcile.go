package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newReconcile() *cobra.Command {
	var o ordering
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Have the agent look at the fleet repository now",
		Long: `Have the agent of this device fetch the fleet repository now, and try again at once
what it waits to try again. It returns before anything is done: see
` + "`tidemark status`" + `.`,
		Example: "  tidemark reconcile && tidemark status",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.send(cmd, methodReconcile, &struct{}{}, func(w io.Writer, device string) {
				fmt.Fprintf(w, "%s looks at the fleet repository\n", device)
			})
		},
	}
	o.flags(cmd)
	return cmd
}
