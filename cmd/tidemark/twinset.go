package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// itself stands where a module's name would: the device's own twin.
const itself = "."

// untilUnset is --for of an override that does not end by itself.
const untilUnset = "unset"

func newTwinSet(at *twins) *cobra.Command {
	var o ordering
	var lasts string
	cmd := &cobra.Command{
		Use:   "set MODULE key=value… --for TIME --reason TEXT",
		Short: "Override on this device, for a while, what Git desires of a module",
		Long: `Override on this device, for a while, what Git desires of a module, or of the device
where MODULE is ".". It works with no network, and ends by itself after --for, of
time in which the device is on, whatever its clock says. Values are JSON, or text
where they are not; a.b=1 sets b within a, and null takes a key away. It replaces
the override before it.

It is drift: status and the hub show who set it, why and until when. Make a commit
of what shall stay (` + "`tidemark twin export`" + `). A definition may forbid it.`,
		Example: `  tidemark twin set sensor interval=200ms --for 8h --reason "too loud"
  tidemark twin set sensor filter.window=5 filter.kind=null --for unset --reason "until the lab has looked"`,
		Args: usage(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			module, err := at.here(methodTwinSet, args[0])
			if err != nil {
				return err
			}
			patch, err := patchOf(args[1:])
			if err != nil {
				return &exitError{exitUsage, err}
			}
			d, err := lasting(lasts)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			if err := o.needReason(cmd); err != nil {
				return err
			}
			o.runDir = at.runDir
			var answer overridden
			err = o.deliver(cmd, methodTwinSet, override{module, patch, schema.Duration(d), o.who(), o.request.Reason}, &answer, func(w io.Writer, _ string) {
				set := answer.Override
				fmt.Fprintln(w, driftLine(schema.OverrideReport{Module: module, By: set.By, Reason: set.Reason, At: set.At, Until: set.Until}))
				if was := answer.Replaced; was != nil {
					fmt.Fprintf(w, "it replaces what %s set at %s\n", was.By, clock(was.At))
				}
			})
			if err != nil {
				return fmt.Errorf("set desired of %s: %w", whose(module), err)
			}
			return nil
		},
	}
	o.out.flag(cmd)
	o.reasonFlags(cmd)
	cmd.Flags().StringVar(&lasts, "for", "", "`time` that it lasts, as 8h or 30m; \"unset\" for until tidemark twin unset")
	return cmd
}

func newTwinUnset(at *twins) *cobra.Command {
	var o ordering
	cmd := &cobra.Command{
		Use:     "unset MODULE",
		Short:   "End the override of a module: desired is as Git says again",
		Long:    "End the override of a module, or of the device where MODULE is \".\": desired is as Git\nsays again.",
		Example: "  tidemark twin unset sensor",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			module, err := at.here(methodTwinUnset, args[0])
			if err != nil {
				return err
			}
			o.runDir = at.runDir
			var was twin.Override
			err = o.deliver(cmd, methodTwinUnset, override{Module: module, By: o.who(), Reason: o.request.Reason}, &was, func(w io.Writer, _ string) {
				fmt.Fprintf(w, "ended: %s\n", driftLine(schema.OverrideReport{Module: module, By: was.By, Reason: was.Reason, At: was.At, Until: was.Until}))
			})
			if err != nil {
				return fmt.Errorf("unset desired of %s: %w", whose(module), err)
			}
			return nil
		},
	}
	o.out.flag(cmd)
	o.reasonFlags(cmd)
	return cmd
}

// here is the module on this device that is meant; empty is the device itself.
func (t *twins) here(method, text string) (string, error) {
	if t.hub != "" {
		return "", &exitError{exitUsage, fmt.Errorf("an override is made on its device: without --hub there, or from here by `tidemark call DEVICE/%s '{\"module\": …}' --hub …`", method)}
	}
	if text == itself {
		return "", nil
	}
	if err := schema.CheckName(text); err != nil {
		return "", &exitError{exitUsage, fmt.Errorf("module %w", err)}
	}
	return text, nil
}

// lasting reads --for; 0 is until it is unset.
func lasting(text string) (time.Duration, error) {
	switch text {
	case "":
		return 0, errors.New("say for how long: --for 8h, or --for unset")
	case untilUnset:
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("--for %q: want a time such as 8h or 30m, or unset", text)
	}
	return d, nil
}

// patchOf makes a merge patch of key=value pairs. A key is a path: a.b is b
// within a.
func patchOf(pairs []string) (map[string]any, error) {
	patch := map[string]any{}
	for _, pair := range pairs {
		key, text, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%q: want key=value, as in interval=200ms", pair)
		}
		var value any
		if json.Unmarshal([]byte(text), &value) != nil {
			value = text
		}
		at, path := patch, strings.Split(key, ".")
		for i, name := range path {
			if name == "" {
				return nil, fmt.Errorf("%q: a part of the key is empty", pair)
			}
			if i == len(path)-1 {
				if _, twice := at[name]; twice {
					return nil, fmt.Errorf("%q: %s is set twice", pair, strings.Join(path, "."))
				}
				at[name] = value
				break
			}
			next, ok := at[name].(map[string]any)
			if _, there := at[name]; there && !ok {
				return nil, fmt.Errorf("%q: %s is set to a value too", pair, strings.Join(path[:i+1], "."))
			}
			if next == nil {
				next = map[string]any{}
				at[name] = next
			}
			at = next
		}
	}
	return patch, nil
}
