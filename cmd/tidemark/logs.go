package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/containerd"
	printed "github.com/tidemark-edge/tidemark/containerd/output"
	"github.com/tidemark-edge/tidemark/twin/leaf"
)

func newLogs() *cobra.Command {
	var v logView
	cmd := &cobra.Command{
		Use:   "logs [MODULE]",
		Short: "Show what a module prints, or which modules have printed",
		Long: `Show what a module of this device printed, on standard output and standard
error, in this run and those before: as much as logs.maxBytes of the agent's
configuration keeps. Without MODULE, list the modules that have logs, those
that printed last first.

It reads the files that the modules write, so it works while no agent runs and
while the module does not.

Lines carry no time of their own. The agent notes once a second how far a log
has come, so --since shows up to a second too much; of what was printed while no
agent ran it shows all. To a terminal, control characters are shown as ^X and
colours are left out, for what a module prints may be meant to harm; a pipe or
file gets the bytes as they are, and so does a terminal with --raw.`,
		Example: "  tidemark logs\n  tidemark logs sensor --since 10m\n  tidemark logs sensor -n 20 -f",
		Args:    usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			v.find()
			if len(args) == 0 {
				return v.list(cmd.OutOrStdout())
			}
			return v.show(cmd, args[0])
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&v.follow, "follow", "f", false, "go on with what is printed from now on, until interrupted")
	flags.StringVar(&v.since, "since", "", "show what was printed since: 10m, or a time such as 2026-08-01T15:04:05Z or 2026-08-01")
	flags.IntVarP(&v.tail, "tail", "n", -1, "show the last so many lines of it (default all)")
	flags.BoolVar(&v.raw, "raw", false, "pass control characters on to a terminal")
	flags.StringVar(&v.stateDir, "state-dir", os.Getenv(envName("stateDir")), "the agent's state directory (default what the agent of --run-dir uses, else "+defaultStateDir+")")
	runDirFlag(flags, &v.runDir)
	return cmd
}

// defaultStateDir is that of an agent whose configuration says none.
const defaultStateDir = "/var/lib/tidemark"

// logView is what to show of a log, and how.
type logView struct {
	stateDir string // empty until found
	runDir   string
	follow   bool
	since    string // a duration or a time; empty is all
	tail     int    // lines; negative is all
	raw      bool
}

// find says where the agent keeps its state, unless the person did.
func (v *logView) find() {
	if v.stateDir != "" {
		return
	}
	v.stateDir = defaultStateDir
	if dir, err := leaf.StateDir(v.runDir); err == nil {
		v.stateDir = dir
	}
}

func (v logView) dir() string { return containerd.LogDir(v.stateDir) }

// list writes a table of the logs there are.
func (v logView) list(out io.Writer) error {
	all, err := printed.List(v.dir())
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("there are no logs in %s: no module has run, or the agent's stateDir is another (--state-dir)", v.dir())
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "MODULE\tKIB\tLAST PRINTED\n")
	for _, info := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\n", info.Module, (info.Size+1023)/1024, clock(info.Newest))
	}
	return w.Flush()
}

// show writes the log of a module to the command's output.
func (v logView) show(cmd *cobra.Command, module string) error {
	from, err := v.begin()
	if err != nil {
		return err
	}
	log, err := printed.Open(v.dir(), module)
	if errors.Is(err, printed.ErrNone) {
		return v.unknown(err)
	}
	if err != nil {
		return err
	}
	defer log.Close()
	position, err := from(log)
	if err == nil && v.tail >= 0 {
		position, err = log.Last(v.tail, position)
	}
	if err != nil {
		return fmt.Errorf("log of %s: %w", module, err)
	}
	out := cmd.OutOrStdout()
	if f, ok := out.(*os.File); ok && !v.raw && isTerminal(f) {
		plain := printed.Plain(out)
		defer plain.Close()
		out = plain
	}
	out = patient{cmd.Context(), out}
	dropped := func(n int64) {
		fmt.Fprintf(cmd.ErrOrStderr(), "tidemark: %d bytes were dropped before they could be shown\n", n)
	}
	if v.follow {
		err = log.Follow(cmd.Context(), out, position, dropped)
	} else {
		var lost int64
		if _, lost, err = log.Copy(out, position); lost > 0 {
			dropped(lost)
		}
	}
	if err != nil && cmd.Context().Err() == nil {
		return fmt.Errorf("show what %s printed: %w", module, err)
	}
	return nil
}

// begin reads --since.
func (v logView) begin() (func(*printed.Log) (int64, error), error) {
	if v.since == "" {
		return (*printed.Log).Start, nil
	}
	if d, err := time.ParseDuration(v.since); err == nil && d >= 0 {
		return func(l *printed.Log) (int64, error) { return l.Ago(d) }, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, v.since, time.Local); err == nil {
			return func(l *printed.Log) (int64, error) { return l.Since(t) }, nil
		}
	}
	return nil, &exitError{exitUsage, fmt.Errorf("--since %q: want a duration such as 10m, or a time such as 2026-08-01T15:04:05Z, 2026-08-01 15:04:05 or 2026-08-01", v.since)}
}

// unknown says which modules there are.
func (v logView) unknown(err error) error {
	all, listErr := printed.List(v.dir())
	if listErr != nil || len(all) == 0 {
		return fmt.Errorf("%w; there are no logs in %s (--state-dir)", err, v.dir())
	}
	var names []string
	for _, info := range all {
		names = append(names, info.Module)
	}
	return fmt.Errorf("%w; there are logs of %s", err, strings.Join(names, ", "))
}

// patient ends a copy when ctx ends.
type patient struct {
	ctx context.Context
	w   io.Writer
}

func (p patient) Write(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.w.Write(b)
}

// isTerminal reports whether a person looks at f.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
