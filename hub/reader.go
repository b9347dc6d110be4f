package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// ErrNoTwin says that the hub never got this twin.
var ErrNoTwin = errors.New("the hub has no such twin")

// Twins reads the twins that a hub holds.
type Twins struct{ bucket jetstream.KeyValue }

// openWithin is how long the hub has to say that it holds twins.
const openWithin = 5 * time.Second

// OpenTwins reads over nc, which has the rights of an operator; see Dial.
func OpenTwins(ctx context.Context, nc *nats.Conn) (*Twins, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open twins: %w", err)
	}
	// A server that refuses does not answer; it says so beside.
	asking, refused := context.WithCancel(ctx)
	defer refused()
	defer nc.SetErrorHandler(nc.ErrorHandler())
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			refused()
		}
	})
	asking, end := context.WithTimeout(asking, openWithin)
	defer end()
	bucket, err := js.KeyValue(asking, BucketTwins)
	if err != nil {
		if refused := nc.LastError(); errors.Is(refused, nats.ErrPermissionViolation) {
			return nil, fmt.Errorf("open twins: this key may not read them: want the hub's operator's (operator.nk in its state directory): %w", refused)
		}
		return nil, fmt.Errorf("open twins: is this a Tidemark hub? %w", err)
	}
	return &Twins{bucket}, nil
}

// Twins reads the twins of this hub.
func (h *Hub) Twins() *Twins { return &Twins{h.twins} }

// Get returns one twin, the device's own when module is empty; ErrNoTwin when
// the hub never got it.
func (t *Twins) Get(ctx context.Context, device, module string) (twin.Document, error) {
	key, err := checkedKey(device, module)
	if err != nil {
		return twin.Document{}, err
	}
	e, err := t.bucket.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return twin.Document{}, fmt.Errorf("twin %s: %w", schema.Address(device, module), ErrNoTwin)
	}
	if err != nil {
		return twin.Document{}, fmt.Errorf("twin %s: %w", schema.Address(device, module), err)
	}
	return twin.ReadDocument(e.Value())
}

func checkedKey(device, module string) (string, error) {
	if err := schema.CheckName(device); err != nil {
		return "", fmt.Errorf("device %w", err)
	}
	if module != "" {
		if err := schema.CheckName(module); err != nil {
			return "", fmt.Errorf("module %w", err)
		}
	}
	return twinKey(device, module), nil
}

// List returns the twins of a device and its modules, or of all devices when
// device is empty: sorted by device, its own before its modules'.
func (t *Twins) List(ctx context.Context, device string) ([]twin.Document, error) {
	var out []twin.Document
	err := t.watch(ctx, device, func(d twin.Document, known bool) bool {
		if !known {
			out = append(out, d)
		}
		return !known
	}, jetstream.IgnoreDeletes())
	slices.SortFunc(out, func(a, b twin.Document) int {
		if c := strings.Compare(a.Device, b.Device); c != 0 {
			return c
		}
		return strings.Compare(a.Module, b.Module)
	})
	return out, err
}

// Watch calls f with the twins of a device, or of all devices when device is
// empty: first with those that are there, then with each that changes, until
// ctx ends or f returns false.
func (t *Twins) Watch(ctx context.Context, device string, f func(twin.Document) bool) error {
	return t.watch(ctx, device, func(d twin.Document, known bool) bool { return known || f(d) }, jetstream.IgnoreDeletes())
}

// watch calls f with each document, and once with known set when all that were
// there have been passed.
func (t *Twins) watch(ctx context.Context, device string, f func(d twin.Document, known bool) bool, o ...jetstream.WatchOpt) error {
	keys := []string{"devices.>"}
	if device != "" {
		key, err := checkedKey(device, "")
		if err != nil {
			return err
		}
		keys = []string{key, key + ".modules.*"}
	}
	w, err := t.bucket.WatchFiltered(ctx, keys, o...)
	if err != nil {
		return fmt.Errorf("watch twins: %w", err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.Updates():
			if !ok {
				return fmt.Errorf("watch twins: the connection to the hub ended")
			}
			var d twin.Document
			if e != nil {
				if d, err = twin.ReadDocument(e.Value()); err != nil {
					continue // what cannot be read is no twin; the device sends its own again
				}
			}
			if !f(d, e == nil) {
				return nil
			}
		}
	}
}
