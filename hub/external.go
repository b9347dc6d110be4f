package hub

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// connectExternal connects to a NATS server or cluster that somebody else runs.
// It needs JetStream and nats-server 2.12 or newer, for atomic batches.
func (h *Hub) connectExternal() error {
	options := []nats.Option{nats.MaxReconnects(-1), nats.ErrorHandler(h.troubled)}
	if file := h.config.External.CredsFile; file != "" {
		login, err := loginFrom(file)
		if err != nil {
			return fmt.Errorf("external server: %w", err)
		}
		options = append(options, login)
	}
	// The first version of the file may be what the server waits for.
	if err := h.writeAuthorization(h.fleet.Devices); err != nil {
		return err
	}
	h.connect = func(name string) (*nats.Conn, error) {
		nc, err := nats.Connect(h.config.External.URL, append(slices.Clone(options), nats.Name(name))...)
		if err != nil {
			return nil, fmt.Errorf("external server %s: %w", h.config.External.URL, err)
		}
		return nc, nil
	}
	nc, err := h.connect("tidemark-hub")
	h.nc = nc
	return err
}

// writeAuthorization writes the devices that the external server shall admit, for
// its configuration to include. That has the two accounts of the embedded server
// (see accounts, and #Hub.external for the whole of it); who logs in to HUB, the
// hub and people, is its owner's to say.
//
// The server reads it when told to (nats-server --signal reload=<pid>, or
// SIGHUP). A reload admits new devices and does not disturb others; it does not
// end the leafnode connection of a revoked device that is connected
// (nats-server 2.15): that takes `nats server request kick`, or a restart.
func (h *Hub) writeAuthorization(devices map[string]string) error {
	path := h.config.External.AuthorizationFile
	if path == "" {
		return nil
	}
	if err := durable.Write(path, authorization(devices), 0o600); err != nil {
		return fmt.Errorf("write the authorization of the external server: %w", err)
	}
	return nil
}

// authorization is the file's content, the same for the same devices.
func authorization(devices map[string]string) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by tidemark hub, for account FLEET: the fleet repository names these devices.\nusers = [\n")
	for _, device := range slices.Sorted(maps.Keys(devices)) {
		fmt.Fprintf(&b, "  {nkey: %s, permissions: {\n    publish: {allow: [%s]}\n    subscribe: {allow: [%s]}\n  }}\n",
			devices[device], quoted(publishAllowed(device)), quoted(subscribeAllowed(device)))
	}
	b.WriteString("]\n")
	return b.Bytes()
}

func quoted(subjects []string) string { return `"` + strings.Join(subjects, `", "`) + `"` }
