package hub

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// Dial connects a person or a service to a hub, with the seed file of the
// hub's operator (<stateDir>/operator.nk) or with a user credentials file.
func Dial(url, seedFile string) (*nats.Conn, error) {
	login, err := loginFrom(seedFile)
	if err != nil {
		return nil, fmt.Errorf("connect to the hub: %w", err)
	}
	quiet := func(*nats.Conn, *nats.Subscription, error) {} // by default, it prints
	nc, err := nats.Connect(url, login, nats.Name("tidemark"), nats.ErrorHandler(quiet))
	if err != nil {
		return nil, fmt.Errorf("connect to the hub at %s: %w", url, err)
	}
	return nc, nil
}

// loginFrom tells an NKey seed from a credentials file by its first letters.
func loginFrom(path string) (nats.Option, error) {
	data, err := durable.ReadSecret(path, 64<<10)
	if err != nil {
		return nil, err
	}
	switch text := strings.TrimSpace(string(data)); {
	case strings.HasPrefix(text, "SU"):
		return nats.NkeyOptionFromSeed(path)
	case strings.Contains(text, "NATS USER JWT"):
		return nats.UserCredentials(path), nil
	}
	return nil, fmt.Errorf("%s holds no seed (SU…), and no user credentials", path)
}
