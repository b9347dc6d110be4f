package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/reconciler"
)

func newPlan() *cobra.Command {
	var out output
	var runDir, path string
	var exitCode bool
	cmd := &cobra.Command{
		Use:   "plan [DIR]",
		Short: "Show what this device would do with these definitions",
		Long: `Evaluate the fleet repository in DIR (default: the current directory) for this
device and compare it with what runs here: the actions that the agent would take,
in order, with their reasons. Nothing is changed, pulled or verified.`,
		Example: "  tidemark plan ~/fleet\n  tidemark plan ~/fleet --exit-code || echo something would change",
		Args:    usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := dialDevice(runDir)
			if err != nil {
				return err
			}
			defer d.close()
			desired, err := renderDir(cmd.Context(), args, d.name, path)
			if err != nil {
				return err
			}
			var plan reconciler.Plan
			if err := d.call(cmd.Context(), methodPlan, desired, &plan); err != nil {
				return err
			}
			if err := out.print(cmd, plan, func(w io.Writer) { printPlan(w, plan) }); err != nil {
				return err
			}
			if exitCode && len(plan) > 0 {
				return &exitError{code: exitNo}
			}
			return nil
		},
	}
	out.flag(cmd)
	runDirFlag(cmd.Flags(), &runDir)
	pathFlag(cmd, &path)
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 3 when there is something to do")
	return cmd
}

func printPlan(w io.Writer, plan reconciler.Plan) {
	if len(plan) == 0 {
		fmt.Fprintln(w, "nothing to do: the device is as declared")
		return
	}
	fmt.Fprint(w, plan.String())
}
