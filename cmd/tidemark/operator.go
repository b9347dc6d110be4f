package main

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/spf13/pflag"

	"github.com/tidemark-edge/tidemark/hub"
)

// operator is who asks a hub, and which.
type operator struct{ hub, creds string }

func (o *operator) flags(flags *pflag.FlagSet) {
	flags.StringVar(&o.hub, "hub", "", "ask this hub, HOST:PORT or nats://…, in place of the agent")
	flags.StringVar(&o.creds, "creds", "", "file with the operator's seed for --hub (operator.nk in the hub's state directory)")
}

// need refuses a command that is for a hub, and names none.
func (o *operator) need() error {
	if o.hub == "" {
		return &exitError{exitUsage, errors.New("say which hub: --hub HOST:PORT --creds operator.nk")}
	}
	return nil
}

// dial connects to the hub. The caller closes the connection.
func (o *operator) dial() (*nats.Conn, error) {
	if o.creds == "" {
		return nil, &exitError{exitUsage, fmt.Errorf("--hub needs --creds, the seed file of the hub's operator (operator.nk in the hub's state directory)")}
	}
	return hub.Dial(o.hub, o.creds)
}
