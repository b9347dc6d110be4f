package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"maps"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/schema"
)

func newStatus() *cobra.Command {
	var out output
	var runDir string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what this device runs, and why",
		Long: `Show the phase, the revision and every module of this device, as the agent
reports them to the hub. It works with no network.

Exits with 3 when the device is not as its newest revision asks: it is not
healthy, the newest commit was refused or an order keeps it from being taken over,
a module does not run that should, somebody set desired of a twin over what Git
says (drift), or containerd cannot say.

The phase is what the device is at with the newest commit:
` + explained(phases) + `

A module is
` + explained(runtimeStates) + `

RESTARTS are those of its container. DOWN is for how long it had no process when
it was replaced last.`,
		Example: "  tidemark status\n  tidemark status -o json | jq .modules.sensor.pid",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := dialDevice(runDir)
			if err != nil {
				return err
			}
			defer d.close()
			var report schema.Report
			if err := d.call(cmd.Context(), methodStatus, nil, &report); err != nil {
				return err
			}
			if err := out.print(cmd, report, func(w io.Writer) { printReport(w, d.name, report) }); err != nil {
				return err
			}
			if !asDeclared(report) {
				return &exitError{code: exitNo}
			}
			return nil
		},
	}
	out.flag(cmd)
	runDirFlag(cmd.Flags(), &runDir)
	return cmd
}

// asDeclared reports whether the device is as its newest revision asks, as far
// as it knows: one that cannot be reached for now may have a newer one.
func asDeclared(r schema.Report) bool {
	resting := r.Phase == schema.PhaseHealthy || r.Phase == schema.PhaseSuspended && r.Newest.IsZero()
	if !resting || r.Refused != nil || r.LastDesiredStatus.Code == schema.CodeFailed {
		return false
	}
	if len(r.Overrides) > 0 {
		return false
	}
	for _, m := range r.Modules {
		if m.RuntimeStatus != schema.RuntimeRunning && m.RuntimeStatus != schema.RuntimeStopped {
			return false
		}
	}
	return true
}

// printReport writes it for people.
func printReport(w io.Writer, device string, r schema.Report) {
	fmt.Fprintf(w, "device\t%s\n", device)
	fmt.Fprintf(w, "phase\t%s\n", r.Phase)
	if r.Order != nil {
		fmt.Fprintf(w, "order\t%s\n", orderLine(*r.Order))
	}
	if s := r.LastDesiredStatus; s.Code != schema.CodeOK && r.Refused == nil {
		fmt.Fprintf(w, "status\t%d %s\n", s.Code, s.Description)
	}
	fmt.Fprintf(w, "revision\t%s\n", revisionLine(r.Revision))
	if r.LastGood.Commit != r.Revision.Commit {
		fmt.Fprintf(w, "last good\t%s\n", revisionLine(r.LastGood))
	}
	if !r.Newest.IsZero() && (r.Refused == nil || r.Refused.Revision.Commit != r.Newest.Commit) {
		fmt.Fprintf(w, "newest\t%s\n", revisionLine(r.Newest))
	}
	printSurroundings(w, r.Surroundings)
	printRefusal(w, r)
	printModules(w, r.Modules)
}

// printRefusal says which commit is not run, and why.
func printRefusal(w io.Writer, r schema.Report) {
	f := r.Refused
	if f == nil {
		return
	}
	if f.By != "" {
		fmt.Fprintf(w, "left\t%s, by %s at %s\n", revisionLine(f.Revision), f.By, clock(f.At))
	} else {
		fmt.Fprintf(w, "refused\t%s, at %s (%d), %s\n", revisionLine(f.Revision), f.Phase, r.LastDesiredStatus.Code, clock(f.At))
	}
	for line := range strings.Lines(f.Reason) {
		fmt.Fprintf(w, "\t%s\n", strings.TrimRight(line, "\n"))
	}
	if f.Output != "" {
		fmt.Fprintf(w, "\n%s printed last, before it was left:\n", f.Module)
		printLines(w, f.Output)
	}
}

// printModules writes a table, and below it what is to be said of single
// modules.
func printModules(w io.Writer, modules map[string]schema.ModuleReport) {
	if len(modules) == 0 {
		return
	}
	names := slices.Sorted(maps.Keys(modules))
	fmt.Fprintf(w, "\nMODULE\tSTATUS\tPID\tRESTARTS\tSTARTED\tDOWN\tSIGNED BY\tIMAGE\n")
	for _, name := range names {
		m := modules[name]
		signer := "-"
		if m.Evidence != nil {
			signer = m.Evidence.Rule
		}
		down := "-"
		if m.Downtime > 0 {
			down = time.Duration(m.Downtime).Round(time.Millisecond).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n",
			name, m.RuntimeStatus, orDash(m.PID), m.Restarts, clock(m.StartedAt), down, signer, shortImage(m.Image))
	}
	for _, name := range names {
		m := modules[name]
		if m.StatusDescription != "" {
			fmt.Fprintf(w, "\n%s: %s\n", name, m.StatusDescription)
		}
		if m.Output != "" && m.RuntimeStatus != schema.RuntimeRunning {
			if m.StatusDescription == "" {
				fmt.Fprintf(w, "\n%s printed last:\n", name)
			}
			printLines(w, m.Output)
		}
	}
}

// revisionLine is a revision in one line.
func revisionLine(r schema.Revision) string {
	if r.IsZero() {
		return "none"
	}
	line := r.Short()
	if r.Subject != "" {
		line += " " + r.Subject
	}
	if r.Signer != "" {
		line += ", signed by " + r.Signer
	}
	return line
}

// shortImage leaves of the digest what tells images apart for a person.
func shortImage(i schema.Image) string {
	const prefix = len("sha256:") + 12
	if d := i.Digest(); len(d) > prefix {
		return i.Repository() + "@" + d[:prefix]
	}
	return string(i)
}

func orDash(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}
