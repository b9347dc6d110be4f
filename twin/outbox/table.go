package outbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/schema/condition"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

// maxRoutes bounds the routes of a device.
const maxRoutes = 64

// table is the routes, ready to be used. It does not change.
type table struct {
	routes []schema.Route // as they were given; empty where the default route stands
	rules  []rule         // those that may refuse first
}

// rule is one route.
type rule struct {
	schema.Route
	module, output string               // of From; empty takes any
	toModule, in   string               // of To; empty is the hub
	where          *condition.Condition // nil takes all
	bytes          int64                // its part of the disk
}

func (r rule) local() bool { return r.toModule != "" }

func (r rule) refuses() bool { return r.Overflow == schema.OverflowRefuse }

// newTable checks the routes. The bound of all is maxBytes.
func newTable(routes []schema.Route, maxBytes int64) (*table, error) {
	t := &table{routes: slices.Clone(routes)}
	if len(routes) > maxRoutes {
		return nil, fmt.Errorf("%d routes are more than the %d that a device may have", len(routes), maxRoutes)
	}
	if len(routes) == 0 {
		routes = []schema.Route{schema.DefaultRoute()}
	}
	names := map[string]bool{}
	for _, route := range routes {
		r, err := newRule(route)
		if err == nil && names[route.Name] {
			err = errors.New("there are two of that name")
		}
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", route.Name, err)
		}
		names[route.Name] = true
		t.rules = append(t.rules, r)
	}
	if err := share(t.rules, maxBytes); err != nil {
		return nil, err
	}
	slices.SortStableFunc(t.rules, func(a, b rule) int {
		switch {
		case a.refuses() == b.refuses():
			return 0
		case a.refuses():
			return -1
		}
		return 1
	})
	return t, nil
}

func newRule(route schema.Route) (r rule, err error) {
	r.Route = route
	if err := schema.CheckName(route.Name); err != nil {
		return r, err
	}
	if r.module, r.output, err = pattern(route.From); err != nil {
		return r, fmt.Errorf("from %q: %w", route.From, err)
	}
	if route.To != schema.ToHub {
		if r.toModule, r.in, err = pattern(route.To); err != nil || r.toModule == "" || r.in == "" {
			return r, fmt.Errorf("to %q: want %q or <module>/<input>", route.To, schema.ToHub)
		}
	}
	if route.Where != "" {
		if r.where, err = condition.Compile(route.Where); err != nil {
			return r, err
		}
	}
	if route.Priority < 0 || route.Priority > 9 || route.TTL < 0 || route.MaxBytes < 0 {
		return r, fmt.Errorf("priority %d, ttl %v, maxBytes %d: want 0 to 9, and nothing negative", route.Priority, route.TTL, route.MaxBytes)
	}
	if !slices.Contains([]string{"", schema.OverflowDropOldest, schema.OverflowRefuse}, route.Overflow) {
		return r, fmt.Errorf("overflow %q: want %s or %s", route.Overflow, schema.OverflowDropOldest, schema.OverflowRefuse)
	}
	if !slices.Contains([]string{"", schema.OrderLiveFirst, schema.OrderStrict}, route.Order) {
		return r, fmt.Errorf("order %q: want %s or %s", route.Order, schema.OrderLiveFirst, schema.OrderStrict)
	}
	return r, nil
}

// pattern reads "<module>/<name>", either of which may be * for any, which is
// empty here.
func pattern(s string) (module, name string, err error) {
	module, name, ok := strings.Cut(s, "/")
	if !ok {
		return "", "", errors.New("want <module>/<name>")
	}
	for _, part := range []*string{&module, &name} {
		if *part == "*" {
			*part = ""
		} else if err := schema.CheckName(*part); err != nil {
			return "", "", err
		}
	}
	return module, name, nil
}

// share gives each route its part of the device's disk.
func share(rules []rule, maxBytes int64) error {
	var sum, open int64
	for _, r := range rules {
		if r.MaxBytes == 0 {
			open++
		} else if int64(r.MaxBytes) < queue.MinBytes {
			return fmt.Errorf("route %q: maxBytes %d: want at least %d", r.Name, r.MaxBytes, queue.MinBytes)
		} else if sum += int64(r.MaxBytes); sum > maxBytes {
			break
		}
	}
	if sum+open*queue.MinBytes > maxBytes {
		return fmt.Errorf("maxBytes: the routes ask for %s: of %s that the device has (outbox.maxBytes)", arithmetic(rules), schema.Bytes(maxBytes).Short())
	}
	for i := range rules {
		rules[i].bytes = int64(rules[i].MaxBytes)
		if rules[i].bytes == 0 {
			rules[i].bytes = (maxBytes - sum) / open
		}
	}
	return nil
}

// arithmetic says what the routes ask for: "a 1.0 GiB + b 2.0 GiB + 3 without
// maxBytes at least 3.0 MiB each = …".
func arithmetic(rules []rule) string {
	var parts []string
	var sum, open int64
	for _, r := range rules {
		if r.MaxBytes == 0 {
			open++
			continue
		}
		sum += int64(r.MaxBytes)
		parts = append(parts, r.Name+" "+r.MaxBytes.Short())
	}
	if open > 0 {
		sum += open * queue.MinBytes
		parts = append(parts, fmt.Sprintf("%d without maxBytes at least %s each", open, schema.Bytes(queue.MinBytes).Short()))
	}
	return strings.Join(parts, " + ") + " = " + schema.Bytes(sum).Short()
}

// same reports whether two tables say the same.
func (t *table) same(other *table) bool { return slices.Equal(t.routes, other.routes) }

// takes says whether the route takes a message. An error of the condition means
// that it does not.
func (r rule) takes(module, output string, h nats.Header, body []byte) (bool, error) {
	if r.module != "" && r.module != module || r.output != "" && r.output != output {
		return false, nil
	}
	if r.where == nil {
		return true, nil
	}
	headers := make(map[string]string, len(h))
	for key, values := range h {
		if len(values) > 0 {
			headers[key] = values[0]
		}
	}
	return r.where.Holds(module, output, headers, body)
}
