package schema

// Route says where messages of modules go. A message goes by every route that
// takes it; one that no route takes is counted and reported. Where a definition
// has no routes, there is one: DefaultRoute.
//
// The messages of a route to the hub are one lane: the hub's stream has them in
// the order in which they were stored, exactly once.
type Route struct {
	Name     string   `json:"name"`
	From     string   `json:"from"`               // "<module>/<output>"; "*" in place of either is any
	Where    string   `json:"where,omitempty"`    // CEL condition on body and headers; empty takes all
	To       string   `json:"to"`                 // ToHub, or "<module>/<input>"
	Priority int      `json:"priority"`           // 0, the most urgent, to 9; among the routes to the hub
	TTL      Duration `json:"ttl,omitempty"`      // a message that waited longer is dropped; 0 is the device's outbox.ttl
	MaxBytes Bytes    `json:"maxBytes,omitempty"` // on disk; 0 is a share of the device's outbox.maxBytes
	Overflow string   `json:"overflow"`           // OverflowDropOldest or OverflowRefuse
	Order    string   `json:"order"`              // OrderLiveFirst or OrderStrict
}

// ToHub is Route.To of what goes to the hub.
const ToHub = "hub"

// What Route.Overflow may say: what happens when MaxBytes are reached.
const (
	OverflowDropOldest = "drop-oldest" // the oldest messages go, and the hub is told which
	OverflowRefuse     = "refuse"      // the module is told that there is no room
)

// What Route.Order may say of a lane after a long outage.
const (
	OrderLiveFirst = "live-first" // new messages go at once; what waited follows beside them, in its own order
	OrderStrict    = "strict"     // what waited goes first
)

// DefaultRoute is the route of a definition that has none.
func DefaultRoute() Route {
	return Route{Name: "default", From: "*/*", To: ToHub, Priority: 5, Overflow: OverflowDropOldest, Order: OrderLiveFirst}
}
