package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/schema"
)

func newRender() *cobra.Command {
	var out output
	var path string
	cmd := &cobra.Command{
		Use:   "render DEVICE [DIR]",
		Short: "Show what the definitions make of one device",
		Long: `Evaluate the fleet repository in DIR (default: the current directory) for one
device and show the result: what the agent of that device would run.`,
		Example: "  tidemark render hannover01 -o json",
		Args:    usage(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			desired, err := renderDir(cmd.Context(), args[1:], args[0], path)
			if err != nil {
				return err
			}
			return out.print(cmd, desired, func(w io.Writer) { printDesired(w, desired) })
		},
	}
	out.flag(cmd)
	pathFlag(cmd, &path)
	return cmd
}

// pathFlag adds the flag that says where in a repository the device is.
func pathFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "path", "", "the device's directory in the repository; default: found by name")
}

// renderDir evaluates the repository that args names, or else the current
// directory's.
func renderDir(ctx context.Context, args []string, device, path string) (schema.Desired, error) {
	tree, err := fleetDir(args)
	if err != nil {
		return schema.Desired{}, err
	}
	return sandboxAt(path).Render(ctx, tree, device)
}

// fleetDir is the fleet repository in the directory that args names, or else in
// the current one.
func fleetDir(args []string) (fs.FS, error) {
	dir := "."
	if len(args) > 0 {
		dir = args[0]
	}
	tree := os.DirFS(dir)
	if _, err := fs.Stat(tree, "cue.mod"); err != nil {
		return nil, fmt.Errorf("%s is no fleet repository: it has no cue.mod (`tidemark init` makes one)", dir)
	}
	return tree, nil
}

// printDesired writes what a device shall run for people.
func printDesired(w io.Writer, d schema.Desired) {
	fmt.Fprintf(w, "device\t%s\n", d.Device)
	if d.Identity != "" {
		fmt.Fprintf(w, "identity\t%s\n", d.Identity)
	}
	fmt.Fprintf(w, "gate\t%s\n", duration(d.Gate))
	if len(d.Modules) == 0 {
		fmt.Fprintln(w, "modules\tnone")
		return
	}
	fmt.Fprintf(w, "\nMODULE\tSTATUS\tNETWORK\tRESTART\tIMAGE\n")
	for _, m := range d.Modules {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.Status, m.Network, m.Restart.Policy, shortImage(m.Image))
	}
}

func duration(d schema.Duration) string {
	text, _ := d.MarshalText() // it cannot fail
	return string(text)
}
