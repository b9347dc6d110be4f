package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/hub"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// watchEvery is how often twins are looked at on the device.
const watchEvery = time.Second

func newTwinWatch(at *twins) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "watch [MODULE | DEVICE[/MODULE]]",
		Short: "Show what changes in twins, as it changes",
		Long: `Show what changes in twins, as it changes, until interrupted: of this device and its
modules (looked at each second), or with --hub of all devices. A line has what
changed, as a merge patch: null is a key that went away. With -o json a line is the
twin, whole.`,
		Example: "  tidemark twin watch sensor\n  tidemark twin watch --hub hub.example.com:4223 --creds operator.nk",
		Args:    usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			seen := map[string]twin.Document{}
			var failed error
			show := func(d twin.Document) bool {
				failed = showChange(cmd.OutOrStdout(), out.format, seen, d)
				return failed == nil
			}
			at.notes, at.back = cmd.ErrOrStderr(), make(chan struct{}, 1)
			waits := func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) }
			err := at.watch(cmd.Context(), name, waits, show)
			if failed != nil || cmd.Context().Err() != nil {
				return failed
			}
			return err
		},
	}
	out.flag(cmd)
	return cmd
}

// watch calls f with the twins of that name, and again when they may have changed,
// until ctx ends or f returns false. It calls waits where there is none yet.
func (t *twins) watch(ctx context.Context, name string, waits func(string), f func(twin.Document) bool) error {
	if t.hub != "" {
		device, module, err := splitName(name)
		if err != nil {
			return &exitError{exitUsage, err}
		}
		return t.atHub(ctx, func(ctx context.Context, twins *hub.Twins) error {
			if _, err := twins.Get(ctx, device, module); device != "" && errors.Is(err, hub.ErrNoTwin) {
				waits(err.Error() + " yet: waiting for it (`tidemark twin list --hub …` has all that there are)")
			}
			return t.watchThrough(ctx, func(ctx context.Context) error {
				return twins.Watch(ctx, device, func(d twin.Document) bool { return module != "" && d.Module != module || f(d) })
			})
		})
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		docs, err := t.list(ctx)
		if name != "" {
			var one twin.Document
			one, err = t.getHere(ctx, name)
			docs = []twin.Document{one}
		}
		if err != nil {
			return err
		}
		for _, d := range docs {
			if !f(d) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watchThrough calls watch, and again each time the hub came back: one that was
// restarted knows of no watcher, which by itself is noticed after 20 s.
func (t *twins) watchThrough(ctx context.Context, watch func(context.Context) error) error {
	for {
		inside, again := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			select {
			case <-t.back:
				again()
			case <-inside.Done():
			}
		}()
		err := watch(inside)
		cut := inside.Err() != nil && ctx.Err() == nil
		again()
		<-ended
		if !cut {
			return err
		}
	}
}

// showChange writes what is new about a twin since it was seen.
func showChange(w io.Writer, format string, seen map[string]twin.Document, d twin.Document) error {
	who := schema.Address(d.Device, d.Module)
	was, known := seen[who]
	desired, reported := d.Properties.Desired, d.Properties.Reported
	if known && desired.Version == was.Properties.Desired.Version && reported.Version == was.Properties.Reported.Version {
		return nil
	}
	seen[who] = d
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(d)
	}
	for _, part := range []struct {
		name     string
		was, now twin.Section
	}{{"desired", was.Properties.Desired, desired}, {"reported", was.Properties.Reported, reported}} {
		if known && part.was.Version == part.now.Version {
			continue
		}
		var patch strings.Builder
		enc := json.NewEncoder(&patch) // which ends the line
		enc.SetEscapeHTML(false)
		if err := enc.Encode(difference(part.was.Values, part.now.Values)); err != nil {
			return err
		}
		drift := ""
		if o := part.now.Override; o != nil {
			drift = " (set by " + o.By + ")"
		}
		if _, err := fmt.Fprintf(w, "%s %s %s %d%s %s", time.Now().Format(time.TimeOnly), who, part.name, part.now.Version, harmless(drift), harmless(patch.String())); err != nil {
			return err
		}
	}
	return nil
}

// difference is the merge patch that makes was into now.
func difference(was, now map[string]any) map[string]any {
	patch := map[string]any{}
	for key := range maps.Keys(was) {
		if _, stays := now[key]; !stays {
			patch[key] = nil
		}
	}
	for key, value := range now {
		before, there := was[key]
		a, isA := before.(map[string]any)
		b, isB := value.(map[string]any)
		switch {
		case there && reflect.DeepEqual(before, value):
		case isA && isB:
			patch[key] = difference(a, b)
		default:
			patch[key] = value
		}
	}
	return patch
}
