package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/hub"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// exported is what an export did with one override, as -o json prints it.
type exported struct {
	Device  string   `json:"device"`
	Module  string   `json:"module,omitempty"`
	CUE     string   `json:"cue"`               // what has to be in the definition, and in comments what may not
	Changed []string `json:"changed,omitempty"` // files of --repo that were written
	Left    []string `json:"left,omitempty"`    // what a person has to change, and where
}

func newTwinExport(from *twins) *cobra.Command {
	var out output
	var repo string
	cmd := &cobra.Command{
		Use:   "export [MODULE | DEVICE[/MODULE]]",
		Short: "Make a commit of what was set over Git: print the change, or write it",
		Long: `Make of overrides the change of the fleet repository that keeps them, and print it;
without a name, of all overrides of this device. With --repo it is written there:
into the device's own files where the value stands, else into a new one beside
them. A value that comes from a layer which others share is not changed but named,
with file:line. Nothing is written unless every device is as acceptable as before,
and nothing but these values changes (` + "`tidemark vet`, `tidemark plan`" + `).

When the device runs the commit, the override ends by itself. Exits with 3 when
something is left for a person to change.`,
		Example: `  tidemark twin export sensor
  tidemark twin export hannover01/sensor --repo fleet --hub hub.example.com:4223 --creds operator.nk`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			docs, err := from.overridden(cmd.Context(), name)
			if err != nil {
				return err
			}
			all, left := []exported{}, 0
			for _, d := range docs {
				e := exported{Device: d.Device, Module: d.Module, CUE: cueOf(d)}
				if repo != "" {
					if e.Changed, e.Left, err = exportTo(cmd.Context(), repo, d); err != nil {
						return err
					}
				}
				all, left = append(all, e), left+len(e.Left)
			}
			if err := out.print(cmd, all, func(w io.Writer) { printExported(w, all, repo != "") }); err != nil {
				return err
			}
			if left > 0 {
				return &exitError{code: exitNo}
			}
			return nil
		},
	}
	out.flag(cmd)
	cmd.Flags().StringVar(&repo, "repo", "", "write the change into the fleet repository in this directory")
	return cmd
}

// overridden are the twins of that name, or all, that have an override.
func (t *twins) overridden(ctx context.Context, name string) ([]twin.Document, error) {
	var docs []twin.Document
	var err error
	switch device, module, _ := strings.Cut(name, "/"); {
	case t.hub != "" && device != "" && module == "":
		err = t.atHub(ctx, func(ctx context.Context, twins *hub.Twins) (err error) {
			if docs, err = twins.List(ctx, device); err == nil && len(docs) == 0 {
				err = fmt.Errorf("twin %s: %w: `tidemark twin list --hub …` has all that there are", schema.Address(device, ""), hub.ErrNoTwin)
			}
			return err
		})
	case name != "":
		docs = make([]twin.Document, 1)
		docs[0], err = t.get(ctx, name)
	default:
		docs, err = t.list(ctx)
	}
	if err != nil {
		return nil, err
	}
	var some []twin.Document
	for _, d := range docs {
		if d.Properties.Desired.Override != nil {
			some = append(some, d)
		}
	}
	if len(some) == 0 {
		return nil, fmt.Errorf("nothing is overridden: desired is as Git says")
	}
	return some, nil
}

func printExported(w io.Writer, all []exported, written bool) {
	for i, e := range all {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if !written {
			fmt.Fprint(w, e.CUE)
			continue
		}
		for _, file := range e.Changed {
			fmt.Fprintf(w, "written: %s\n", file)
		}
		for _, what := range e.Left {
			fmt.Fprintf(w, "left to you: %s\n", what)
		}
	}
}
