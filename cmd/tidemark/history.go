package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/schema"
)

func newHistory() *cobra.Command {
	var out output
	var runDir string
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show what happened to revisions on this device",
		Long: `Show what happened to revisions on this device, newest last: which were taken over,
passed their gate, were refused or rolled back from, and what people ordered.
The device remembers at most 200 events. What happened to a revision:
` + explained(events) + `

BY is who ordered it, as they say; "-" where the device decided. Below the table is
what the module printed that failed last.`,
		Example: "  tidemark history\n  tidemark history -o json | jq '.[] | select(.kind == \"rolled-back\")'",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := dialDevice(runDir)
			if err != nil {
				return err
			}
			defer d.close()
			events := []schema.Event{}
			if err := d.call(cmd.Context(), methodHistory, nil, &events); err != nil {
				return err
			}
			return out.print(cmd, events, func(w io.Writer) { printHistory(w, events) })
		},
	}
	out.flag(cmd)
	runDirFlag(cmd.Flags(), &runDir)
	return cmd
}

// printHistory writes events as a table, and below it what modules printed.
func printHistory(w io.Writer, events []schema.Event) {
	if len(events) == 0 {
		fmt.Fprintln(w, "nothing has happened yet")
		return
	}
	fmt.Fprintf(w, "WHEN\tWHAT\tREVISION\tBY\tREASON\n")
	for _, e := range events {
		revision := cmp.Or(strings.TrimSpace(e.Revision.Short()+" "+e.Revision.Subject), "-")
		reason, rest, _ := strings.Cut(e.Reason, "\n")
		if rest != "" {
			reason += " …"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", clock(e.At), e.Kind, clipped(revision, 48), cmp.Or(e.By, "-"), cmp.Or(clipped(reason, 120), "-"))
	}
	for _, e := range slices.Backward(events) {
		if e.Output != "" {
			fmt.Fprintf(w, "\n%s printed last, before %s was left:\n", e.Module, e.Revision.Short())
			printLines(w, e.Output)
			break
		}
	}
}

// printLines writes what a module printed, below what it belongs to.
func printLines(w io.Writer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(w, "  | %s\n", strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", "    "))
	}
}

// clipped is s, cut to at most that many characters.
func clipped(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
