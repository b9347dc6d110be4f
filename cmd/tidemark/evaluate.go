package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/schema/sandbox"
)

// newEvaluate is the hidden command that package sandbox starts as a child
// process with limits.
func newEvaluate() *cobra.Command {
	return &cobra.Command{
		Use:    "evaluate",
		Short:  "Evaluate definitions for the parent process",
		Hidden: true,
		Args:   usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			os.Exit(sandbox.Main(os.Stdin, os.Stdout))
			return nil
		},
	}
}
