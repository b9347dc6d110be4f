package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
)

// ordering is what the commands by which a person orders something share.
type ordering struct {
	out     output
	runDir  string
	request reconciler.Request
}

func (o *ordering) flags(cmd *cobra.Command) {
	o.out.flag(cmd)
	runDirFlag(cmd.Flags(), &o.runDir)
	o.reasonFlags(cmd)
}

func (o *ordering) reasonFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.request.Reason, "reason", "", "why, for the record and for those who come after")
	cmd.Flags().StringVar(&o.request.By, "by", "", "who, for the record (default: user@host and terminal)")
}

// needReason refuses an order that nobody could understand later.
func (o *ordering) needReason(cmd *cobra.Command) error {
	if strings.TrimSpace(o.request.Reason) == "" {
		return &exitError{exitUsage, errors.New(`say why, for those who come after: --reason "…"`)}
	}
	return nil
}

// send gives the order to the agent, and prints its answer.
func (o *ordering) send(cmd *cobra.Command, method string, answer any, text func(w io.Writer, device string)) error {
	o.request.By = o.who()
	o.request.To = strings.ToLower(o.request.To)
	return o.deliver(cmd, method, o.request, answer, text)
}

// who is the person who orders it.
func (o *ordering) who() string { return cmp.Or(o.request.By, whoami()) }

// deliver is send of what a method takes other than a reconciler.Request.
func (o *ordering) deliver(cmd *cobra.Command, method string, body, answer any, text func(w io.Writer, device string)) error {
	o.request.By = o.who()
	if err := o.request.Check(false); err != nil {
		return &exitError{exitUsage, err}
	}
	d, err := dialDevice(o.runDir)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.call(cmd.Context(), method, body, answer); err != nil {
		return err
	}
	return o.out.print(cmd, answer, func(w io.Writer) { text(w, d.name) })
}

// whoami is the person at this terminal, as far as the system knows: the one
// behind sudo rather than root.
func whoami() string {
	who := cmp.Or(os.Getenv("SUDO_USER"), os.Getenv("USER"))
	if u, err := user.Current(); err == nil && who == "" {
		who = u.Username
	}
	who = cmp.Or(who, fmt.Sprintf("uid %d", os.Getuid()))
	if host, err := os.Hostname(); err == nil {
		who += "@" + host
	}
	if tty, err := os.Readlink("/proc/self/fd/0"); err == nil && (strings.HasPrefix(tty, "/dev/pts/") || strings.HasPrefix(tty, "/dev/tty")) {
		terminal, _ := filepath.Rel("/dev", tty) // both are absolute
		who += " on " + terminal
	}
	return who
}

func newSuspend() *cobra.Command {
	var o ordering
	cmd := &cobra.Command{
		Use:   "suspend --reason TEXT",
		Short: "Have this device take over no newer revision",
		Long: `Have this device take over no newer revision than the one that runs, until
` + "`tidemark resume`" + `. Modules are supervised as ever, a trial that is under way goes on
to its end, and the newest commit is still fetched and shown. It is on the disk
before this returns, outlasts reboots, and the hub is told. Of a device that is
suspended already it changes who and why.`,
		Example: `  tidemark suspend --reason "harvest until Friday"`,
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.needReason(cmd); err != nil {
				return err
			}
			var order schema.Order
			return o.send(cmd, methodSuspend, &order, func(w io.Writer, device string) {
				fmt.Fprintf(w, "%s is %s\n", device, orderLine(order))
			})
		},
	}
	o.flags(cmd)
	return cmd
}

func newResume() *cobra.Command {
	var o ordering
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "Have this device follow Git again",
		Long: `Have this device follow Git again: ends ` + "`tidemark suspend`" + `, the hold of
` + "`tidemark rollback --hold`" + `, and a roll-back that is not done yet. A revision that a
person rolled back from may be taken over again.`,
		Example: `  tidemark resume --reason "harvest is done"`,
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			var was *schema.Order
			return o.send(cmd, methodResume, &was, func(w io.Writer, device string) {
				if fmt.Fprintf(w, "%s follows Git\n", device); was != nil {
					fmt.Fprintf(w, "it was %s\n", orderLine(*was))
				}
			})
		},
	}
	o.flags(cmd)
	return cmd
}

func newRollback() *cobra.Command {
	var o ordering
	cmd := &cobra.Command{
		Use:   "rollback [--to REV] [--hold] --reason TEXT",
		Short: "Return this device to an earlier good revision",
		Long: `Return this device to an earlier revision that was healthy on it: the newest one
before what runs, or the one whose commit begins with REV (see ` + "`tidemark history`" + `).
It is verified and gated like any other, and needs no network where its images
are still on the disk: those of the last good revision are.

The revision that is left is not taken over again. The next commit is, unless
--hold has the device stay until ` + "`tidemark resume`" + `. This returns before anything is
replaced: see ` + "`tidemark status`" + `.`,
		Example: `  tidemark rollback --reason "camera is black since Tuesday"
  tidemark rollback --to 3f2a91c --hold --reason "audit"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &exitError{exitUsage, fmt.Errorf("name the revision with --to %s", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.needReason(cmd); err != nil {
				return err
			}
			var r reconciler.Rollback
			return o.send(cmd, methodRollback, &r, func(w io.Writer, device string) {
				moves, stays := "returns to", "and stays there until `tidemark resume`"
				if r.From.Commit == r.To.Commit {
					moves, stays = "stays at", "until `tidemark resume`"
				}
				fmt.Fprintf(w, "%s %s %s\n", device, moves, revisionLine(r.To))
				if r.Hold {
					fmt.Fprintln(w, stays)
				}
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&o.request.To, "to", "", "the revision, or at least the first 4 digits of its commit")
	cmd.Flags().BoolVar(&o.request.Hold, "hold", false, "take over nothing newer until resumed")
	return cmd
}

func newRetry() *cobra.Command {
	var o ordering
	cmd := &cobra.Command{
		Use:   "retry",
		Short: "Have this device try the newest commit again",
		Long: `Have this device try the newest commit again now, though it was refused, or rolled
back from: the same commit may succeed where what it needs is there by now. It
returns before anything is done: see ` + "`tidemark status`" + `.`,
		Example: `  tidemark retry --reason "the camera is plugged in again"`,
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			var again struct {
				Revision schema.Revision `json:"revision,omitzero"`
			}
			return o.send(cmd, methodRetry, &again, func(w io.Writer, device string) {
				if again.Revision.IsZero() {
					fmt.Fprintf(w, "%s runs the newest commit that it knows, and looks for a newer one\n", device)
				} else {
					fmt.Fprintf(w, "%s tries %s again\n", device, revisionLine(again.Revision))
				}
			})
		},
	}
	o.flags(cmd)
	return cmd
}

// orderLine is an order in one line.
func orderLine(o schema.Order) string {
	line := "suspended"
	if o.Kind == schema.OrderHold {
		line = "held at " + o.Revision.Short()
	}
	line += fmt.Sprintf(" by %s since %s", o.By, clock(o.At))
	if o.Reason != "" {
		line += ": " + o.Reason
	}
	return line
}
