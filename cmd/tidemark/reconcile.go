package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newReconcile() *cobra.Command {
	var out output
	var runDir string
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Have the agent look at the fleet repository now",
		Long: `Have the agent of this device fetch the fleet repository now, and try again at once
what it waits to try again. It returns before anything is done: see
` + "`tidemark status`" + `.`,
		Example: "  tidemark reconcile && tidemark status",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := dialDevice(runDir)
			if err != nil {
				return err
			}
			defer d.close()
			if err := d.call(cmd.Context(), methodReconcile, nil, &struct{}{}); err != nil {
				return err
			}
			return out.print(cmd, map[string]string{"device": d.name}, func(w io.Writer) {
				fmt.Fprintf(w, "%s looks at the fleet repository\n", d.name)
			})
		},
	}
	out.flag(cmd)
	runDirFlag(cmd.Flags(), &runDir)
	return cmd
}
