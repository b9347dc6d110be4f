package twin

import (
	"context"
	"errors"
)

// Client is a module's connection to its twin.
type Client struct{}

// Connect connects a module to the leaf of its device, from the environment.
func Connect(ctx context.Context) (*Client, error) { return nil, errors.New("not built") }

// Get returns the whole twin.
func (c *Client) Get(ctx context.Context) (Document, error) {
	return Document{}, errors.New("not built")
}

// Report merges patch into properties.reported and returns its new version.
func (c *Client) Report(ctx context.Context, patch map[string]any) (uint64, error) {
	return 0, errors.New("not built")
}

// OnDesired calls f with properties.desired: now, and when it changed.
func (c *Client) OnDesired(f func(Section)) error { return errors.New("not built") }

// Send hands a message over for the hub.
func (c *Client) Send(ctx context.Context, name string, body []byte) error {
	return errors.New("not built")
}

// Close ends the connection.
func (c *Client) Close() {}
