package outbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
)

const (
	routesVersion = 1
	maxRoutesFile = 1 << 20 // bytes
)

// saved is what the device remembers of its routes.
type saved struct {
	Routes []schema.Route `json:"routes"` // none: the default route
	Former []schema.Route `json:"former"` // those that went, and in whose queues something may be; at most maxRoutes
}

func (o *Outbox) routesFile() string { return filepath.Join(o.dir(), "routes.json") }

// store writes the routes to the disk.
func (o *Outbox) store(s saved) error {
	data, err := durable.Seal(routesVersion, s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir(), 0o700); err != nil {
		return err
	}
	return durable.Write(o.routesFile(), data, 0o600)
}

// stored reads the routes that the device had last; none when it never had any,
// or when the file is broken, which is then set aside.
func (o *Outbox) stored() saved {
	data, err := durable.Read(o.routesFile(), maxRoutesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return saved{}
	}
	var s saved
	if err == nil {
		s, err = decodeRoutes(data)
	}
	if err != nil {
		kept, failed := durable.SetAside(o.routesFile())
		o.config.Warn(errors.Join(fmt.Errorf("read the routes: %w; messages go by the default route until there are others; the file is kept as %s", err, kept), failed))
		return saved{}
	}
	return s
}

func decodeRoutes(data []byte) (saved, error) {
	content, err := durable.Unseal(routesVersion, data)
	if err != nil {
		return saved{}, err
	}
	var s saved
	if err := json.Unmarshal(content, &s); err != nil {
		return saved{}, err
	}
	return s, nil
}

// rulesOf are the rules of routes that are gone, as far as they make sense.
func rulesOf(routes []schema.Route) map[key]rule {
	out := map[key]rule{}
	for _, route := range routes {
		if r, err := newRule(route); err == nil {
			out[r.key()] = r
		}
	}
	return out
}

// formerRoutes are the routes that drain once t stands. The caller holds mu.
func (o *Outbox) formerRoutes(t *table) (out []schema.Route) {
	stays := map[key]bool{}
	for _, r := range t.rules {
		stays[r.key()] = true
	}
	for _, l := range o.lanes {
		if r, _ := l.route(); !stays[l.key] && len(out) < maxRoutes {
			out = append(out, r.Route)
		}
	}
	return out
}
