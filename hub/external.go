package hub

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

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

// writeAuthorization writes the users that the external server shall admit, for
// its configuration to include, in the account that has the stream:
//
//	authorization { include "tidemark-users.conf" }
//
// or, with accounts,
//
//	accounts { FLEET { jetstream: enabled, include "tidemark-users.conf" } }
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
	full, err := h.fullUsers()
	if err != nil {
		return err
	}
	if err := durable.Write(path, authorization(full, devices), 0o600); err != nil {
		return fmt.Errorf("write the authorization of the external server: %w", err)
	}
	return nil
}

// fullUsers are the keys that may do everything: the operator's, and the hub's
// own where it logs in with a seed.
func (h *Hub) fullUsers() ([]string, error) {
	operator, err := operatorKey(h.OperatorSeed())
	if err != nil {
		return nil, err
	}
	full := []string{operator}
	file := h.config.External.CredsFile
	if file == "" {
		return full, nil
	}
	data, err := durable.ReadSecret(file, 64<<10)
	if err != nil {
		return nil, err
	}
	if data = bytes.TrimSpace(data); !bytes.HasPrefix(data, []byte("SU")) {
		return full, nil
	}
	key, err := nkeys.FromSeed(data)
	if err != nil {
		return nil, errors.New("credsFile: not an NKey seed") // the library's error may quote it
	}
	public, err := key.PublicKey()
	return append(full, public), err
}

// authorization is the file's content, the same for the same devices.
func authorization(full []string, devices map[string]string) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by tidemark hub: the fleet repository names these devices.\nusers = [\n")
	for _, public := range full {
		fmt.Fprintf(&b, "  {nkey: %s}\n", public)
	}
	for _, device := range slices.Sorted(maps.Keys(devices)) {
		fmt.Fprintf(&b, "  {nkey: %s, permissions: {\n    publish: {allow: [%s]}\n    subscribe: {allow: [%s]}\n  }}\n",
			devices[device], quoted(publishAllowed(device)), quoted(subscribeAllowed(device)))
	}
	b.WriteString("]\n")
	return b.Bytes()
}

func quoted(subjects []string) string { return `"` + strings.Join(subjects, `", "`) + `"` }
