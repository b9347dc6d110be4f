package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/pflag"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf"
)

// answerWithin is how long a person waits for the agent. It answers from
// memory, or after one look at containerd.
const answerWithin = 10 * time.Second

// device is a connection of a person's command to the agent of this device.
type device struct {
	conn *nats.Conn
	name string
}

// runDirFlag adds the flag that says which agent is meant. TIDEMARK_RUN_DIR,
// which the agent itself obeys, is its default.
func runDirFlag(flags *pflag.FlagSet, runDir *string) {
	flags.StringVar(runDir, "run-dir", cmp.Or(os.Getenv(envName("runDir")), "/run/tidemark"), "the agent's run directory")
}

// dialDevice connects to the agent that has this run directory.
func dialDevice(runDir string) (*device, error) {
	conn, name, err := leaf.Dial(runDir)
	if err != nil {
		return nil, fmt.Errorf("reach the agent: %w", err)
	}
	return &device{conn: conn, name: name}, nil
}

func (d *device) close() { d.conn.Close() }

// call calls a direct method of the device and decodes its answer into result.
func (d *device) call(ctx context.Context, method string, body, result any) error {
	return d.request(ctx, twin.Prefix(d.name, "")+".rpc."+method, body, result)
}

// twin reads the twin of a module, or the device's own.
func (d *device) twin(ctx context.Context, module string) (twin.Document, error) {
	var doc twin.Document
	err := d.request(ctx, twin.Prefix(d.name, module)+".twin.get", nil, &doc)
	return doc, err
}

// request asks on a subject of the device and decodes the answer into result.
func (d *device) request(ctx context.Context, subject string, body, result any) error {
	data := []byte("{}")
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return fmt.Errorf("ask %s: %w", subject, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	msg, err := d.conn.RequestWithContext(ctx, subject, data)
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("ask %s: the agent is starting or of another version: %w", subject, err)
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w", subject, err)
	}
	var refusal struct {
		Error *twin.Error `json:"error"`
	}
	if json.Unmarshal(msg.Data, &refusal) == nil && refusal.Error != nil {
		return told(refusal.Error)
	}
	if err := json.Unmarshal(msg.Data, result); err != nil {
		return fmt.Errorf("ask %s: read the answer: %w", subject, err)
	}
	return nil
}

// told is a refusal for a person: its code is for programs.
func told(e *twin.Error) error {
	if e.Path != "" {
		return fmt.Errorf("%s: %s", e.Path, e.Message)
	}
	return errors.New(e.Message)
}
