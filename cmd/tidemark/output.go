package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// output is how a command prints data: for people, or as JSON.
type output struct{ format string }

// flag adds -o to a command.
func (o *output) flag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.format, "output", "o", "text", "text or json")
	cmd.PreRunE = func(*cobra.Command, []string) error { return o.check() }
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// print writes v as JSON, or calls text with a writer that aligns what is
// separated by tabs.
func (o *output) print(cmd *cobra.Command, v any, text func(io.Writer)) error {
	switch o.format {
	case "json":
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	case "text":
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
		text(w)
		return w.Flush()
	default:
		return o.check()
	}
}

// check refuses a format that there is not, before anything is done.
func (o *output) check() error {
	if o.format == "text" || o.format == "json" {
		return nil
	}
	return &exitError{exitUsage, fmt.Errorf("--output %q: want text or json", o.format)}
}
