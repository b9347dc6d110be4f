package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/hub"
	"github.com/tidemark-edge/tidemark/schema"
)

// audited is what the hub holds of one lane, as -o json prints it.
type audited struct {
	Lane     string            `json:"lane"`
	Epochs   int               `json:"epochs"`           // lives of its queue on the device
	Messages uint64            `json:"messages"`         // that came
	Lost     map[string]uint64 `json:"lost,omitempty"`   // that do not come, by reason
	Waiting  uint64            `json:"waiting"`          // that the device holds back, and sends beside the new ones
	Faults   []string          `json:"faults,omitempty"` // holes, and what is there twice or out of order
}

func newAudit() *cobra.Command {
	var out output
	var at operator
	cmd := &cobra.Command{
		Use:   "audit DEVICE --hub HOST:PORT --creds FILE",
		Short: "Check that the hub has every message of a device once, in order, or knows why not",
		Long: `Check every lane of a device, as far back as the hub holds it: each sequence number is
there once, in order, as a message or as one that does not come, with the reason.

Exits with 3 when something is missing, there twice or out of order.`,
		Example: "  tidemark audit hannover01 --hub hub.example.com:4223 --creds operator.nk",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := at.need(); err != nil {
				return err
			}
			if err := schema.CheckName(args[0]); err != nil {
				return &exitError{exitUsage, fmt.Errorf("device %w", err)}
			}
			var audits []hub.Audit
			err := at.ask(cmd.Context(), func(ctx context.Context, conn *nats.Conn) error {
				messages, err := hub.OpenMessages(conn)
				if err != nil {
					return err
				}
				if audits, err = messages.Audit(ctx, args[0]); err == nil && len(audits) == 0 {
					err = at.knows(ctx, conn, args[0])
				}
				return err
			})
			if err != nil {
				return err
			}
			all, faults := []audited{}, 0
			for _, a := range audits {
				all = append(all, audited(a))
				faults += len(a.Faults)
			}
			if err := out.print(cmd, all, func(w io.Writer) { printAudits(w, args[0], all) }); err != nil {
				return err
			}
			if faults > 0 {
				return &exitError{code: exitNo}
			}
			return nil
		},
	}
	out.flag(cmd)
	at.flags(cmd.Flags())
	return cmd
}

func printAudits(w io.Writer, device string, all []audited) {
	if len(all) == 0 {
		fmt.Fprintf(w, "the hub knows %s, and holds no message of it\n", device)
		return
	}
	fmt.Fprintln(w, "LANE\tMESSAGES\tWAITING\tDO NOT COME\tFAULTS")
	for _, a := range all {
		var lost []string
		for _, reason := range slices.Sorted(maps.Keys(a.Lost)) {
			lost = append(lost, fmt.Sprintf("%d (%s)", a.Lost[reason], harmless(reason)))
		}
		if len(lost) == 0 {
			lost = []string{"0"}
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%d\n", a.Lane, a.Messages, a.Waiting, strings.Join(lost, ", "), len(a.Faults))
	}
	for _, a := range all {
		for _, fault := range a.Faults {
			fmt.Fprintf(w, "\n%s: %s", a.Lane, fault)
		}
	}
	fmt.Fprintln(w)
}
