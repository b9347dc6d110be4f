// Command tidemark keeps edge devices at the state that Git declares.
//
// tidemark agent is the daemon on a device and tidemark hub the cloud side; the
// other subcommands are for people and pipelines. This package only wires: it
// reads configuration, connects the packages, and prints.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set when a release is linked.
var version = "dev"

// Exit codes, for scripts.
const (
	exitOK      = 0
	exitFailure = 1 // it could not be done; the message says why
	exitUsage   = 2 // wrong flags or arguments
	exitNo      = 3 // it was done, and the answer is no: not healthy, not trusted, not empty
)

// exitError makes the process end with its code. Where there is nothing left to
// say, err is nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitFailure
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(root.ErrOrStderr(), "tidemark:", text)
	}
	return code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "tidemark",
		Short: "Keep edge devices at the state that Git declares",
		Long: `Tidemark keeps edge devices at the state that Git declares: an agent on each
device pulls a repository of CUE definitions, verifies the signature of every
module image, runs the modules through containerd, and reports to a hub over NATS
whenever there is a network.

Exit codes: 0 done; 1 it could not be done; 2 wrong usage; 3 the answer is no
(status: not healthy; verify: not trusted; audit: messages are missing;
plan --exit-code: something to do).`,
		Example:       "  tidemark init fleet && tidemark vet fleet\n  tidemark agent --config agent.cue\n  tidemark status",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{exitUsage, fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
	})
	root.AddGroup(
		&cobra.Group{ID: "daemon", Title: "Daemons:"},
		&cobra.Group{ID: "fleet", Title: "In the fleet repository:"},
		&cobra.Group{ID: "device", Title: "On a device, or asking the hub:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("daemon", newAgent(), newHub())
	add("fleet", newInit(), newVet(), newRender(), newPlan())
	add("device", newStatus(), newHistory(), newLogs(), newTwin(), newCall(), newIdentity(), newMessages(), newAudit(), newReconcile(), newSuspend(), newResume(), newRollback(), newRetry(), newVerify(), newEnroll())
	root.AddCommand(newVersion(), newEvaluate())
	return root
}

// knownCommand refuses what stands where a command should.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("there is no command %q", strings.TrimPrefix(cmd.CommandPath()+" "+args[0], "tidemark "))
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += fmt.Sprintf(": is %s meant?", strings.Join(near, " or "))
	}
	return &exitError{exitUsage, errors.New(text)}
}

// usage makes a wrong number of arguments a usage error that says what to write.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			if strings.HasPrefix(err.Error(), "unknown command") { // cobra.NoArgs of a command that has none below it
				err = fmt.Errorf("%s takes no argument, and got %q", cmd.CommandPath(), args[0])
			}
			return &exitError{exitUsage, fmt.Errorf("%w\nusage: %s", err, cmd.UseLine())}
		}
		return nil
	}
}
