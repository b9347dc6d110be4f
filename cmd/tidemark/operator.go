package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/spf13/pflag"

	"github.com/tidemark-edge/tidemark/hub"
)

// operator is who asks a hub, and which.
type operator struct {
	hub, creds string
	notes      io.Writer     // told when the hub goes away and comes back; nil: nobody is
	back       chan struct{} // holds a value when it came back; nil: nobody waits for it
}

func (o *operator) flags(flags *pflag.FlagSet) {
	flags.StringVar(&o.hub, "hub", "", "ask this hub in place of the agent: HOST:PORT, where it listens for people")
	flags.StringVar(&o.creds, "creds", "", "`file` with the seed of the hub's operator (operator.nk in the hub's state directory), for --hub")
}

// need refuses a command that is for a hub, and names none.
func (o *operator) need() error {
	if o.hub == "" {
		return &exitError{exitUsage, errors.New("say which hub: --hub HOST:PORT --creds operator.nk")}
	}
	return nil
}

// ask calls f with a connection to the hub. A server that refuses what f asks for
// says so beside, and does not answer; the context of f ends then.
func (o *operator) ask(ctx context.Context, f func(context.Context, *nats.Conn) error) error {
	if o.creds == "" {
		return &exitError{exitUsage, errors.New("--hub needs --creds, the seed file of the hub's operator (operator.nk in the hub's state directory)")}
	}
	if _, err := os.Stat(o.creds); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--creds %s: there is no such file: it is operator.nk in the hub's state directory, or a copy", o.creds)
	}
	conn, err := hub.Dial(o.hub, o.creds)
	if err != nil {
		return o.explain(err)
	}
	defer conn.Close()
	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	conn.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			refuse(err)
		}
	})
	o.watch(conn)
	err = f(ctx, conn)
	if err != nil && (errors.Is(err, nats.ErrPermissionViolation) || errors.Is(context.Cause(ctx), nats.ErrPermissionViolation)) {
		return fmt.Errorf("ask the hub at %s: it refuses this to the key in %s: take its operator's (operator.nk in its state directory): %w", o.hub, o.creds, nats.ErrPermissionViolation)
	}
	return err
}

// watch tells of outages.
func (o *operator) watch(conn *nats.Conn) {
	if o.notes == nil {
		return
	}
	conn.SetDisconnectErrHandler(func(*nats.Conn, error) {
		if !conn.IsClosed() {
			fmt.Fprintln(o.notes, "the hub is away: waiting for it")
		}
	})
	conn.SetReconnectHandler(func(*nats.Conn) {
		fmt.Fprintln(o.notes, "the hub is back")
		select {
		case o.back <- struct{}{}:
		default:
		}
	})
}

// knows is an error where a device is named that the hub never heard of.
func (o *operator) knows(ctx context.Context, conn *nats.Conn, device string) error {
	if device == "" {
		return nil
	}
	twins, err := hub.OpenTwins(ctx, conn)
	if err != nil {
		return err
	}
	if _, err = twins.Get(ctx, device, ""); errors.Is(err, hub.ErrNoTwin) {
		return fmt.Errorf("the hub at %s never heard of a device %s (`tidemark twin list --hub …` has all that it knows)", o.hub, device)
	}
	return err
}

// explain adds to why there is no connection what to look at.
func (o *operator) explain(err error) error {
	switch {
	case strings.Contains(strings.ToLower(err.Error()), nats.AUTHORIZATION_ERR): // nats.go gives the server's words, and no error of its own
		return fmt.Errorf("%w: is %s operator.nk of this very hub, and the address its own for people, not that for devices?", err, o.creds)
	case errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("%w: does the hub run, and does its configuration say listen: %q? (4223 is the port where it says none)", err, o.hub)
	case errors.Is(err, nats.ErrSecureConnWanted), errors.Is(err, nats.ErrSecureConnRequired):
		return fmt.Errorf("%w: is the address to begin with tls://, or not to?", err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: who listens there does not answer as a hub does: is this its address?", err)
	}
	return err
}
