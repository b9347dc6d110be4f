package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// vetted is the verdict on one device, as -o json prints it.
type vetted struct {
	Device string `json:"device"`
	Dir    string `json:"dir"`
	Error  string `json:"error,omitempty"` // each problem on a line, with file:line:col
}

func newVet() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "vet [DIR]",
		Short: "Check every device of the fleet repository",
		Long: `Evaluate every device that the fleet repository in DIR (default: the current
directory) defines, as its agent will. It finds what ` + "`cue vet -c ./...`" + ` finds, and
what CUE cannot say: cycles in dependsOn, modules that are not there, sizes.

Exits with 1 when a device's definition is not acceptable.`,
		Example: "  tidemark vet\n  tidemark vet -o json | jq '.[] | select(.error)'",
		Args:    usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			tree, err := fleetDir(args)
			if err != nil {
				return err
			}
			entries, err := sandboxAt("").Devices(cmd.Context(), tree)
			if err != nil {
				return err
			}
			verdicts, bad := []vetted{}, 0
			for _, e := range entries {
				v := vetted{Device: e.Name, Dir: e.Dir}
				if e.Err != nil {
					v.Error, bad = e.Err.Error(), bad+1
				}
				verdicts = append(verdicts, v)
			}
			if err := out.print(cmd, verdicts, func(w io.Writer) { printVerdicts(w, verdicts) }); err != nil {
				return err
			}
			if bad > 0 {
				return fmt.Errorf("%d of %d devices are not acceptable", bad, len(entries))
			}
			return nil
		},
	}
	out.flag(cmd)
	return cmd
}

func printVerdicts(w io.Writer, verdicts []vetted) {
	if len(verdicts) == 0 {
		fmt.Fprintln(w, "no device is defined: a device is a directory of its name whose package has the field `device`")
	}
	for _, v := range verdicts {
		if v.Error == "" {
			fmt.Fprintf(w, "ok\t%s\n", v.Dir)
			continue
		}
		fmt.Fprintf(w, "bad\t%s\n%s\n", v.Dir, v.Error)
	}
}
