package schema

import (
	"strings"
	"time"

	"github.com/tidemark-edge/tidemark/schema/condition"
)

// Bounds on routes. Each has a queue of its own on the disk.
const (
	maxRoutes     = 32
	minRouteTTL   = Duration(time.Second)
	maxRouteTTL   = Duration(365 * 24 * time.Hour)
	minRouteBytes = minOutboxBytes
	maxRouteBytes = maxOutboxBytes
)

// checkRoutes notes routes that can never take or pass on a message.
func checkRoutes(d Desired, path []string, p *problems) {
	checkCount(len(d.Routes), maxRoutes, path, p)
	for _, r := range d.Routes {
		at := extend(path, r.Name)
		if module, _, _ := strings.Cut(r.From, "/"); module != "*" {
			checkDeclared(d, module, extend(at, "from"), p)
		}
		if module, _, ok := strings.Cut(r.To, "/"); ok {
			checkDeclared(d, module, extend(at, "to"), p)
		}
		if r.Where != "" {
			if _, err := condition.Compile(r.Where); err != nil {
				p.add(extend(at, "where"), "%v", err)
			}
		}
		if r.TTL != 0 {
			checkRange(r.TTL, minRouteTTL, maxRouteTTL, extend(at, "ttl"), p)
		}
		if r.MaxBytes != 0 {
			checkSize(r.MaxBytes, minRouteBytes, maxRouteBytes, extend(at, "maxBytes"), p)
		}
	}
}

func checkDeclared(d Desired, module string, path []string, p *problems) {
	switch _, ok := d.Module(module); {
	case ok:
	case module == ToHub:
		p.add(path, "no module is named hub, and none can be: a route to the hub is to: \"hub\", and its services are open to every module")
	default:
		p.add(path, "no module is named %s", module)
	}
}
