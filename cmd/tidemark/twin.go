package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/hub"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// twins are what `tidemark twin` reads: the agent's of this device, or the
// hub's of all devices.
type twins struct {
	runDir string
	operator
}

func newTwin() *cobra.Command {
	var from twins
	cmd := &cobra.Command{
		Use:   "twin",
		Short: "Read the twins of this device and its modules, or those that the hub has; override desired",
		Long: `Read twins. On a device they come from its agent, with no network. With --hub they
come from the hub, for every device of the fleet. set and unset override, on the
device and for a while, what Git desires; export makes a commit of it.`,
		Example: `  tidemark twin get                     # this device
  tidemark twin get sensor              # a module on it
  tidemark twin get hannover01/sensor --hub hub.example.com:4223 --creds operator.nk
  tidemark twin list --hub hub.example.com:4223 --creds operator.nk
  tidemark twin set sensor interval=200ms --for 8h --reason "too loud"`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	runDirFlag(cmd.PersistentFlags(), &from.runDir)
	from.operator.flags(cmd.PersistentFlags())
	cmd.AddCommand(newTwinGet(&from), newTwinList(&from), newTwinWatch(&from), newTwinSet(&from), newTwinUnset(&from), newTwinExport(&from))
	return cmd
}

func newTwinGet(from *twins) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "get [MODULE | DEVICE[/MODULE]]",
		Short:   "Show one twin: desired, reported, versions",
		Example: "  tidemark twin get sensor -o json | jq .properties.reported.temperature",
		Args:    usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			doc, err := from.get(cmd.Context(), name)
			if err != nil {
				return err
			}
			return out.print(cmd, doc, func(w io.Writer) { printTwin(w, doc) })
		},
	}
	out.flag(cmd)
	return cmd
}

func newTwinList(from *twins) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the twins that the hub has, or that this device has",
		Long: `List the twins that the hub has, or that this device has: for each the status that
the agent reported last, the versions, the commit that desired is from, and when
reported changed last, by the device's clock. A device that is cut off stays as
it was.`,
		Example: "  tidemark twin list --hub hub.example.com:4223 --creds operator.nk",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			docs, err := from.list(cmd.Context())
			if err != nil {
				return err
			}
			return out.print(cmd, docs, func(w io.Writer) { printTwins(w, docs) })
		},
	}
	out.flag(cmd)
	return cmd
}

// get reads the twin of that name: of a module of this device, or with a hub of
// DEVICE or DEVICE/MODULE.
func (t *twins) get(ctx context.Context, name string) (twin.Document, error) {
	if t.hub == "" {
		return t.getHere(ctx, name)
	}
	device, module, err := splitName(name)
	if err != nil || device == "" {
		return twin.Document{}, &exitError{exitUsage, cmp.Or(err, errors.New("say whose twin: DEVICE or DEVICE/MODULE (`tidemark twin list --hub …` has them all)"))}
	}
	var doc twin.Document
	err = t.atHub(ctx, func(ctx context.Context, twins *hub.Twins) (err error) {
		doc, err = twins.Get(ctx, device, module)
		return err
	})
	if errors.Is(err, hub.ErrNoTwin) {
		err = fmt.Errorf("%w: `tidemark twin list --hub …` has all that there are", err)
	}
	return doc, err
}

// atHub calls f with the twins of the hub.
func (t *twins) atHub(ctx context.Context, f func(context.Context, *hub.Twins) error) error {
	return t.ask(ctx, func(ctx context.Context, conn *nats.Conn) error {
		twins, err := hub.OpenTwins(ctx, conn)
		if err != nil {
			return err
		}
		return f(ctx, twins)
	})
}

// splitName takes DEVICE/MODULE, or DEVICE, apart.
func splitName(name string) (device, module string, err error) {
	device, module, isModule := strings.Cut(name, "/")
	if device != "" {
		err = schema.CheckName(device)
	}
	if isModule && err == nil {
		err = schema.CheckName(module)
	}
	return device, module, err
}

// getHere asks the agent for the twin of that name: MODULE, or as over the hub
// DEVICE/MODULE or DEVICE; "." or nothing is the device itself.
func (t *twins) getHere(ctx context.Context, name string) (twin.Document, error) {
	if name == itself {
		name = ""
	}
	first, second, err := splitName(name)
	if err != nil {
		return twin.Document{}, &exitError{exitUsage, err}
	}
	d, err := dialDevice(t.runDir)
	if err != nil {
		return twin.Document{}, err
	}
	defer d.close()
	if second != "" && first != d.name {
		return twin.Document{}, fmt.Errorf("this is %s: twins of %s are at its hub (--hub)", d.name, first)
	}
	module := cmp.Or(second, first)
	doc, err := d.twin(ctx, module)
	if module == d.name && second == "" && errors.Is(err, nats.ErrNoResponders) {
		doc, err = d.twin(ctx, "") // no module is named like the device, so that is meant
	}
	if module != "" && errors.Is(err, nats.ErrNoResponders) {
		err = fmt.Errorf("device %s has no module %s (`tidemark twin list` has all; of another device, ask with --hub)", d.name, module)
	}
	return doc, err
}

func (t *twins) list(ctx context.Context) ([]twin.Document, error) {
	if t.hub != "" {
		var docs []twin.Document
		err := t.atHub(ctx, func(ctx context.Context, twins *hub.Twins) (err error) {
			docs, err = twins.List(ctx, "")
			return err
		})
		return docs, err
	}
	device, err := t.getHere(ctx, "")
	if err != nil {
		return nil, err
	}
	docs := []twin.Document{device}
	modules, _ := device.Properties.Reported.Values["modules"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		doc, err := t.getHere(ctx, name)
		if err != nil {
			return nil, err
		}
		docs = append(docs, doc)
	}
	return docs, nil
}

// printTwins writes a line for each twin. What a module's status is, its device
// says.
func printTwins(w io.Writer, docs []twin.Document) {
	status := map[string]string{}
	for _, d := range docs {
		if d.Module != "" {
			continue
		}
		var r schema.Report
		if data, err := json.Marshal(d.Properties.Reported.Values); err != nil || json.Unmarshal(data, &r) != nil {
			continue // of an agent that reports otherwise
		}
		text := r.Phase
		if code := r.LastDesiredStatus.Code; code != schema.CodeOK && code != 0 {
			text += fmt.Sprintf(" (%d)", code)
		}
		status[schema.Address(d.Device, "")] = text
		for name, m := range r.Modules {
			status[schema.Address(d.Device, name)] = m.RuntimeStatus
		}
	}
	fmt.Fprintln(w, "IDENTITY\tSTATUS\tDESIRED\tREPORTED\tFROM\tCHANGED")
	for _, d := range docs {
		who := schema.Address(d.Device, d.Module)
		if d.Removed {
			status[who] = "removed" // its versions are kept for when it is declared again
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\n", who, cmp.Or(status[who], "-"), d.Properties.Desired.Version,
			d.Properties.Reported.Version, short(d.Properties.Desired.Source), clock(lastUpdated(d.Properties.Reported.Metadata)))
	}
}

// lastUpdated is the newest time in a section's metadata; zero without one.
func lastUpdated(metadata map[string]any) time.Time {
	var newest time.Time
	for key, value := range metadata {
		var at time.Time
		switch v := value.(type) {
		case map[string]any:
			at = lastUpdated(v)
		case string:
			if key == "$lastUpdated" {
				at, _ = time.Parse(time.RFC3339Nano, v)
			}
		}
		if at.After(newest) {
			newest = at
		}
	}
	return newest
}

// printTwin writes a twin for people.
func printTwin(w io.Writer, d twin.Document) {
	fmt.Fprintf(w, "twin of %s\n", schema.Address(d.Device, d.Module))
	if len(d.Tags) > 0 {
		fmt.Fprintln(w, "\ntags")
		printValues(w, "  ", d.Tags)
	}
	desired, reported := d.Properties.Desired, d.Properties.Reported
	fmt.Fprintf(w, "\ndesired, version %d", desired.Version)
	if desired.Source != "" {
		fmt.Fprintf(w, ", from commit %s", short(desired.Source))
	}
	fmt.Fprintln(w)
	printValues(w, "  ", desired.Values)
	if o := desired.Override; o != nil {
		fmt.Fprintf(w, "\ndrift: %s\n", driftLine(schema.OverrideReport{Module: d.Module, By: o.By, Reason: o.Reason, At: o.At, Until: o.Until}))
		printValues(w, "  ", o.Patch)
	}
	fmt.Fprintf(w, "\nreported, version %d\n", reported.Version)
	printValues(w, "  ", reported.Values)
}

// printValues writes an object with a line for each value, nested objects
// indented below their name.
func printValues(w io.Writer, indent string, values map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if nested, ok := values[key].(map[string]any); ok && len(nested) > 0 {
			fmt.Fprintf(w, "%s%s:\n", indent, key)
			printValues(w, indent+"  ", nested)
			continue
		}
		fmt.Fprintf(w, "%s%s: ", indent, key)
		enc := json.NewEncoder(w) // which ends the line
		enc.SetEscapeHTML(false)
		if err := enc.Encode(values[key]); err != nil {
			fmt.Fprintln(w, values[key])
		}
	}
}

// short abbreviates a commit for people.
func short(commit string) string { return schema.Revision{Commit: commit}.Short() }
