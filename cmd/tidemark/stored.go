package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/hub"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// storedMessage is a line of `tidemark messages -o json`.
type storedMessage struct {
	At     uint64              `json:"at"`     // its place at the hub, for --from
	Stored time.Time           `json:"stored"` // by the hub's clock
	Device string              `json:"device"`
	Lane   string              `json:"lane"`
	Epoch  string              `json:"epoch"`
	Seq    uint64              `json:"seq"`
	Module string              `json:"module,omitempty"`
	Name   string              `json:"name,omitempty"`
	Time   time.Time           `json:"time,omitzero"` // by the device's clock
	Header map[string][]string `json:"header,omitempty"`
	Body   json.RawMessage     `json:"body,omitempty"`       // as it is where it is JSON, else a string
	Binary string              `json:"bodyBase64,omitempty"` // where it is not text
	Lost   *lostRange          `json:"lost,omitempty"`       // in place of a body: messages that do not come
}

// lostRange are messages of a lane that do not come.
type lostRange struct {
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Reason string `json:"reason"`
}

func newMessages() *cobra.Command {
	var out output
	var at operator
	var filter hub.Filter
	var follow bool
	var from uint64
	cmd := &cobra.Command{
		Use:   "messages --hub HOST:PORT --creds FILE",
		Short: "Show the messages of modules that the hub holds",
		Long: `Show the messages of modules that the hub holds, in the order in which it stored
them: those of one lane are in the order of the device, each once. Where messages do
not come, a line says which and why. With -o json each is one line of JSON, whole.`,
		Example: `  tidemark messages --hub hub.example.com:4223 --creds operator.nk --device hannover01 -f
  tidemark messages --hub hub.example.com:4223 --creds operator.nk --name alarms -o json | jq .body`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := at.need(); err != nil {
				return err
			}
			if err := check(filter); err != nil {
				return &exitError{exitUsage, err}
			}
			if follow {
				at.notes = cmd.ErrOrStderr()
			}
			any, err := at.read(cmd.Context(), filter, from, follow, func(m hub.Message) error {
				return printMessage(cmd.OutOrStdout(), m, out.format)
			})
			if follow && errors.Is(err, context.Canceled) && cmd.Context().Err() != nil {
				return nil // who follows ends it so
			}
			if err == nil && !any {
				fmt.Fprintln(cmd.ErrOrStderr(), "the hub holds no such message (`tidemark audit DEVICE --hub …` shows the lanes of a device, and how many are in each)")
			}
			return err
		},
	}
	out.flag(cmd)
	at.flags(cmd.Flags())
	flags := cmd.Flags()
	flags.StringVar(&filter.Device, "device", "", "only of this device")
	flags.StringVar(&filter.Module, "module", "", "only of modules of this name")
	flags.StringVar(&filter.Name, "name", "", "only what was sent under this name")
	flags.StringVar(&filter.Lane, "lane", "", "only of this lane: a route's name; with :late, what waited beside it")
	flags.BoolVarP(&follow, "follow", "f", false, "go on with what comes, until interrupted")
	flags.Uint64Var(&from, "from", 0, "begin with the message at this place (at, in -o json)")
	return cmd
}

// check refuses what names nothing.
func check(f hub.Filter) error {
	lane, _ := strings.CutSuffix(f.Lane, twin.Late(""))
	for _, one := range []struct{ flag, name string }{{"device", f.Device}, {"module", f.Module}, {"name", f.Name}, {"lane", lane}} {
		if one.name == "" {
			continue
		}
		if err := schema.CheckName(one.name); err != nil {
			return fmt.Errorf("--%s: %w", one.flag, err)
		}
	}
	return nil
}

// read calls show with the messages that the hub holds, and with follow those that
// come, until it fails. It reports whether there were any.
func (o *operator) read(ctx context.Context, filter hub.Filter, from uint64, follow bool, show func(hub.Message) error) (any bool, err error) {
	err = o.ask(ctx, func(ctx context.Context, conn *nats.Conn) error {
		messages, err := hub.OpenMessages(conn)
		if err != nil {
			return err
		}
		read := messages.Read
		if follow {
			read = messages.Follow
			if err := o.knows(ctx, conn, filter.Device); err != nil {
				fmt.Fprintf(o.notes, "%v; waiting for it\n", err)
			}
		}
		var failed error
		err = read(ctx, filter, from, func(m hub.Message) bool {
			any, failed = true, show(m)
			return failed == nil
		})
		if err == nil && !any {
			err = o.knows(ctx, conn, filter.Device)
		}
		return errors.Join(err, failed)
	})
	return any, err
}

// printMessage writes a line.
func printMessage(w io.Writer, m hub.Message, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(messageLine(m))
	}
	place := fmt.Sprintf("%s %s %s:%d", clock(m.Stored), m.Device, m.Lane, m.Seq)
	if m.Lost != nil {
		place = fmt.Sprintf("%s %s %s:%d-%d", clock(m.Stored), m.Device, m.Lane, m.Lost.From, m.Lost.To)
		_, err := fmt.Fprintf(w, "%s do not come: %s\n", place, harmless(m.Lost.Reason))
		return err
	}
	body := fmt.Sprintf("%d bytes, not text", len(m.Body))
	if utf8.Valid(m.Body) {
		body = clipped(strings.ReplaceAll(harmless(string(m.Body)), "\n", " "), 200)
	}
	_, err := fmt.Fprintf(w, "%s %s/%s %s\n", place, m.Module, m.Name, body)
	return err
}

func messageLine(m hub.Message) storedMessage {
	line := storedMessage{
		At: m.At, Stored: m.Stored.UTC(), Device: m.Device, Lane: m.Lane, Epoch: m.Epoch, Seq: m.Seq,
		Module: m.Module, Name: m.Name, Time: m.Time, Header: m.Header,
	}
	switch {
	case m.Lost != nil:
		line.Lost = &lostRange{m.Lost.From, m.Lost.To, m.Lost.Reason}
	case utf8.Valid(m.Body):
		line.Body = asJSON(m.Body)
	default:
		line.Binary = base64.StdEncoding.EncodeToString(m.Body)
	}
	return line
}
