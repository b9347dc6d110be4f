package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/hub"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// called is a call and its answer, as -o json prints it.
type called struct {
	Device string          `json:"device"`
	Module string          `json:"module,omitempty"`
	Method string          `json:"method"`
	Answer json.RawMessage `json:"answer"` // a string where it is not JSON
}

func newCall() *cobra.Command {
	var out output
	var to twins
	timeout := twin.DefaultCallTime
	cmd := &cobra.Command{
		Use:   "call [DEVICE/][MODULE/]METHOD [BODY]",
		Short: "Call a direct method of a module, or of a device",
		Long: `Call a direct method and print its answer: of this device or of a module on it, with
no network; with --hub, of any device that is linked. BODY is what the method
takes ({} where it is left out); - reads it from standard input.

Of a device that is not linked, or a module that is not connected, one hears at
once. After --timeout it may have been done all the same.

The device's own methods are those that the commands of a person on it call:
` + explained(deviceMethods),
		Example: `  tidemark call insight/health
  tidemark call insight/calibrate '{"offset": 0.5}' --timeout 2m
  tidemark call hannover01/insight/health --hub hub.example.com:4223 --creds operator.nk
  tidemark call hannover01/reconcile '{"by": "anna"}' --hub hub.example.com:4223 --creds operator.nk`,
		Args: usage(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if timeout <= 0 || timeout > twin.MaxCallTime {
				return &exitError{exitUsage, fmt.Errorf("--timeout %s: want a time up to %s", timeout, twin.MaxCallTime)}
			}
			m, err := to.method(args[0])
			if err != nil {
				return &exitError{exitUsage, err}
			}
			body, err := bodyOf(cmd.InOrStdin(), args[1:])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			answer, err := to.call(ctx, &m, body, timeout)
			if refusal, ok := errors.AsType[*twin.Error](err); ok {
				return fmt.Errorf("call %s of %s: %w", m.Name, schema.Address(m.Device, m.Module), told(refusal))
			}
			if err != nil {
				return err
			}
			if len(answer) == 0 && out.format == "text" {
				fmt.Fprintln(cmd.ErrOrStderr(), "it answered, with nothing")
				return nil
			}
			return out.print(cmd, called{m.Device, m.Module, m.Name, asJSON(answer)}, func(w io.Writer) { fmt.Fprintln(w, harmless(string(answer))) })
		},
	}
	out.flag(cmd)
	runDirFlag(cmd.Flags(), &to.runDir)
	to.operator.flags(cmd.Flags())
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait for the answer")
	return cmd
}

// method reads whose method is meant. On the device its name may be left out.
func (t *twins) method(text string) (hub.Method, error) {
	parts := strings.Split(text, "/")
	for _, part := range parts {
		if err := schema.CheckName(part); err != nil {
			return hub.Method{}, fmt.Errorf("%q: %w", text, err)
		}
	}
	switch n := len(parts); {
	case t.hub != "" && n == 2:
		return hub.Method{Device: parts[0], Name: parts[1]}, nil
	case n == 3:
		return hub.Method{Device: parts[0], Module: parts[1], Name: parts[2]}, nil
	case t.hub == "" && n == 2:
		return hub.Method{Module: parts[0], Name: parts[1]}, nil
	case t.hub == "" && n == 1:
		return hub.Method{Name: parts[0]}, nil
	case t.hub != "":
		return hub.Method{}, fmt.Errorf("%q: over the hub, say DEVICE/METHOD or DEVICE/MODULE/METHOD", text)
	}
	return hub.Method{}, fmt.Errorf("%q: want METHOD, MODULE/METHOD or DEVICE/MODULE/METHOD", text)
}

// bodyOf is what the method takes.
func bodyOf(stdin io.Reader, args []string) ([]byte, error) {
	switch {
	case len(args) == 0:
		return []byte("{}"), nil
	case args[0] != "-":
		return []byte(args[0]), nil
	}
	body, err := io.ReadAll(io.LimitReader(stdin, twin.MaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	return body, nil
}

// call calls a method here or over the hub, and fills in the device here.
func (t *twins) call(ctx context.Context, m *hub.Method, body []byte, timeout time.Duration) ([]byte, error) {
	if len(body) > twin.MaxBody {
		return nil, fmt.Errorf("the body has more than %d bytes", twin.MaxBody)
	}
	if t.hub != "" {
		var answer []byte
		err := t.ask(ctx, func(ctx context.Context, conn *nats.Conn) (err error) {
			answer, err = hub.Call(ctx, conn, *m, body)
			if e, ok := errors.AsType[*twin.Error](err); ok && e.Code == twin.CodeOffline {
				if unknown := t.knows(ctx, conn, m.Device); unknown != nil {
					err = fmt.Errorf("call %s of %s: %w", m.Name, schema.Address(m.Device, m.Module), unknown)
				}
			}
			return err
		})
		return answer, err
	}
	d, err := dialDevice(t.runDir)
	if err != nil {
		return nil, err
	}
	defer d.close()
	if m.Device != "" && m.Device != d.name {
		return nil, fmt.Errorf("this is %s: calls of %s go over its hub (--hub)", d.name, m.Device)
	}
	m.Device = d.name
	answer, err := d.conn.RequestMsgWithContext(ctx, &nats.Msg{Subject: twin.Prefix(d.name, m.Module) + ".rpc." + m.Name, Data: body,
		Header: nats.Header{twin.HeaderTimeout: {timeout.String()}}})
	whose := schema.Address(d.name, m.Module)
	switch {
	case errors.Is(err, nats.ErrNoResponders) && m.Module == "":
		return nil, fmt.Errorf("call %s of %s: a device has no such method (`tidemark call --help` lists them; a module's is MODULE/METHOD)", m.Name, whose)
	case errors.Is(err, nats.ErrNoResponders):
		if _, err := d.twin(ctx, m.Module); errors.Is(err, nats.ErrNoResponders) {
			return nil, fmt.Errorf("call %s of %s: no such module is declared (`tidemark twin list` has all)", m.Name, whose)
		}
		return nil, fmt.Errorf("call %s of %s: nobody answers it: is the module connected (`tidemark identity list`), and does it have the method?", m.Name, whose)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("call %s of %s: no answer within %s: it may have been done all the same", m.Name, whose, timeout)
	case err != nil:
		return nil, fmt.Errorf("call %s of %s: %w", m.Name, whose, err)
	}
	return twin.ReadReply(answer.Data)
}

// asJSON is an answer or a body within a JSON document: as it is, or as a string.
func asJSON(data []byte) json.RawMessage {
	if json.Valid(data) {
		return bytes.TrimSpace(data)
	}
	text, _ := json.Marshal(string(data)) // a string can always be
	return text
}

// harmless is text of a module as a terminal may have it: control characters, by
// which it could do harm, are left out, but for the ends of lines.
func harmless(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r <= 0x9f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\ufffd"))
}
