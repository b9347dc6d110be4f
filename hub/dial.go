package hub

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
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
	data, err := durable.Read(path, 64<<10)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(strings.TrimSpace(string(data)), "SU") {
		return nats.NkeyOptionFromSeed(path)
	}
	return nats.UserCredentials(path), nil
}

// Call calls a direct method of a device, over a connection with the rights of
// an operator. The device may publish only below up.<device>., so the answer
// comes there. ErrUnreachable says that the device is not linked.
func Call(ctx context.Context, nc *nats.Conn, device, method string, body []byte) ([]byte, error) {
	if err := errors.Join(schema.CheckName(device), schema.CheckName(method)); err != nil {
		return nil, fmt.Errorf("call: %w", err)
	}
	answers, err := nc.SubscribeSync(twin.Up(device) + ".answer." + rand.Text())
	if err != nil {
		return nil, fmt.Errorf("call %s of %s: %w", method, device, err)
	}
	defer answers.Unsubscribe()
	if err := nc.PublishRequest(twin.Prefix(device, "")+".rpc."+method, answers.Subject, body); err != nil {
		return nil, fmt.Errorf("call %s of %s: %w", method, device, err)
	}
	m, err := answers.NextMsgWithContext(ctx)
	if errors.Is(err, nats.ErrNoResponders) {
		err = ErrUnreachable
	}
	if err != nil {
		return nil, fmt.Errorf("call %s of %s: %w", method, device, err)
	}
	return m.Data, nil
}

// ErrUnreachable says that a device is not linked to the hub, or has no such
// method.
var ErrUnreachable = errors.New("nobody there answers: is the device linked, and does it have the method?")
