package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this binary",
		Example: "  tidemark version -o json",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			v := map[string]string{"version": version, "go": runtime.Version(), "platform": platform()}
			return out.print(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "tidemark %s (%s, %s)\n", version, platform(), runtime.Version())
			})
		},
	}
	out.flag(cmd)
	return cmd
}

// platform is what images are chosen for: "linux/arm64".
func platform() string { return runtime.GOOS + "/" + runtime.GOARCH }
