package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf"
)

func newIdentity() *cobra.Command {
	var runDir string
	cmd := &cobra.Command{
		Use:     "identity",
		Short:   "Show the identities of this device's modules, and give one a new key",
		Long:    "Show the identities of this device's modules, and give one a new key. All of it works\nwith no network: the device itself is who knows them.",
		Example: "  tidemark identity list\n  tidemark identity rotate sensor --grace 1h --reason \"service visit\"",
		Args:    knownCommand,
		RunE:    func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	runDirFlag(cmd.PersistentFlags(), &runDir)
	cmd.AddCommand(newIdentityList(&runDir), newIdentityRotate(&runDir))
	return cmd
}

func newIdentityList(runDir *string) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the modules' public keys, since when, and who is connected",
		Long: `List the modules' public keys, since when they are, how many connections there are,
and keys of before a rotation that are still good. Nothing of it is secret.`,
		Example: "  tidemark identity list -o json | jq '.[] | select(.connections == 0).module'",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := dialDevice(*runDir)
			if err != nil {
				return err
			}
			defer d.close()
			all := []leaf.ModuleIdentity{}
			if err := d.call(cmd.Context(), methodIdentities, nil, &all); err != nil {
				return err
			}
			return out.print(cmd, all, func(w io.Writer) { printIdentities(w, all) })
		},
	}
	out.flag(cmd)
	return cmd
}

// rotation is what the method identity-rotate takes.
type rotation struct {
	Module string          `json:"module"`
	Grace  schema.Duration `json:"grace"`
	By     string          `json:"by"`
	Reason string          `json:"reason,omitempty"`
}

func newIdentityRotate(runDir *string) *cobra.Command {
	var o ordering
	grace := leaf.DefaultGrace
	cmd := &cobra.Command{
		Use:   "rotate MODULE",
		Short: "Give a module a new key, without starting it anew",
		Long: `Give a module a new key: the file of its seed is replaced, and its connections end
once, so that its clients come back. One that reads the file each time it connects,
as the Go client does, has the new key then; another has --grace until the key of
before ends, and what is connected with it. A grace of 0s ends it at once, for a
key that has leaked.`,
		Example: "  tidemark identity rotate sensor\n  tidemark identity rotate sensor --grace 0s --reason \"the key leaked\"",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := schema.CheckName(args[0]); err != nil {
				return &exitError{exitUsage, err}
			}
			if grace < 0 || grace > leaf.MaxGrace {
				return &exitError{exitUsage, fmt.Errorf("--grace %s: want a time from 0s to %s", grace, leaf.MaxGrace)}
			}
			o.runDir = *runDir
			var now leaf.ModuleIdentity
			return o.deliver(cmd, methodRotate, rotation{args[0], schema.Duration(grace), o.who(), o.request.Reason}, &now, func(w io.Writer, _ string) {
				fmt.Fprintf(w, "%s has the key %s\n", now.Address, now.PublicKey)
				for _, old := range now.Old {
					fmt.Fprintf(w, "%s is good until %s\n", old.PublicKey, clock(old.Until))
				}
			})
		},
	}
	o.out.flag(cmd)
	o.reasonFlags(cmd)
	cmd.Flags().DurationVar(&grace, "grace", grace, "how long the key of before is still good")
	return cmd
}

func printIdentities(w io.Writer, all []leaf.ModuleIdentity) {
	if len(all) == 0 {
		fmt.Fprintln(w, "no module is declared")
		return
	}
	fmt.Fprintln(w, "MODULE\tCONNECTIONS\tSINCE\tKEY")
	for _, i := range all {
		key := i.PublicKey
		if key == "" {
			key = "-"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", i.Module, i.Connections, clock(i.Since), key)
		for _, old := range i.Old {
			fmt.Fprintf(w, "\t\tgood until %s\t%s\n", clock(old.Until), old.PublicKey)
		}
	}
}

// identities answers the method identity-list.
func (m methods) identities(context.Context, []byte) ([]byte, error) {
	all, err := m.leaf.Identities()
	if err != nil {
		return nil, err
	}
	return json.Marshal(append([]leaf.ModuleIdentity{}, all...))
}

// rotate answers the method identity-rotate.
func (m methods) rotate(ctx context.Context, body []byte) ([]byte, error) {
	var q rotation
	if err := readBody(body, &q); err != nil {
		return nil, err
	}
	if err := schema.CheckName(q.Module); err != nil {
		return nil, &twin.Error{Code: twin.CodeMalformed, Path: "module", Message: err.Error()}
	}
	request, err := asRequest(ctx, q.By, q.Reason)
	if err != nil {
		return nil, err
	}
	now, err := m.leaf.Rotate(ctx, q.Module, time.Duration(q.Grace))
	if err != nil {
		return nil, err
	}
	reason := q.Module
	if q.Reason != "" {
		reason += ": " + q.Reason
	}
	m.reconciler.Note(schema.Event{At: time.Now(), Kind: schema.EventRotate, By: request.By, Reason: reason})
	return json.Marshal(now)
}
