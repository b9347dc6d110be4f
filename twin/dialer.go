package twin

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// dialTime is how long one attempt to connect may take. The leaf is on the same
// machine.
const dialTime = 2 * time.Second

// dialer reads the seed anew before each connect, so that a client takes up a
// rotated identity by itself. The NATS client dials with its connection's lock
// held, which is what it reads Opts.Nkey and asks for the signature under, and
// so is what makes it right to set it here.
type dialer struct {
	file string                     // with the seed
	conn atomic.Pointer[nats.Conn]  // nil until nats.Connect has returned
	key  atomic.Pointer[signingKey] // whose public half the connection has
}

type signingKey struct {
	pair   nkeys.KeyPair
	public string // "U…"
}

func newDialer(file string) (*dialer, error) {
	key, err := readKey(file)
	if err != nil {
		return nil, err
	}
	d := &dialer{file: file}
	d.key.Store(key)
	return d, nil
}

// readKey reads the NKey of a user from a file with its seed.
func readKey(file string) (*signingKey, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return nil, err
	}
	pair, err := nkeys.ParseDecoratedNKey(data)
	if err != nil {
		return nil, err
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, err
	}
	if !nkeys.IsValidPublicUserKey(public) {
		return nil, errors.New("not a user's NKey seed")
	}
	return &signingKey{pair, public}, nil
}

func (d *dialer) option() nats.Option {
	return func(o *nats.Options) error {
		o.CustomDialer = d
		o.Nkey = d.key.Load().public
		o.SignatureCB = func(nonce []byte) ([]byte, error) { return d.key.Load().pair.Sign(nonce) }
		return nil
	}
}

// Dial implements nats.CustomDialer. A seed that cannot be read now leaves the
// one before.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	if conn := d.conn.Load(); conn != nil {
		if key, err := readKey(d.file); err == nil {
			d.key.Store(key)
			conn.Opts.Nkey = key.public
		}
	}
	return (&net.Dialer{Timeout: dialTime}).Dial(network, address)
}
