package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin/leaf"
	"github.com/tidemark-edge/tidemark/twin/outbox"
)

// uplink is how the way to the hub is.
type uplink struct {
	Hub    string        `json:"hub,omitempty"`    // its URL; empty when the device stands alone
	Linked bool          `json:"linked"`           // it is connected
	Since  time.Time     `json:"since,omitzero"`   // since when Linked is so, or the agent runs
	Outbox *outbox.Stats `json:"outbox,omitempty"` // what waits for it; nil while the outbox cannot be opened
}

func uplinkOf(ctx context.Context, config schema.AgentConfig, l *leaf.Leaf, p *post) uplink {
	u := uplink{Outbox: p.stats(ctx)}
	if config.Hub != nil {
		u.Hub = config.Hub.URL
		u.Linked, u.Since = l.Linked()
	}
	return u
}

// print writes it for people.
func (u uplink) print(w io.Writer) {
	switch {
	case u.Hub == "":
		return
	case u.Linked:
		fmt.Fprintf(w, "hub\t%s, linked since %s\n", u.Hub, clock(u.Since))
	default:
		fmt.Fprintf(w, "hub\t%s, not linked since %s\n", u.Hub, clock(u.Since))
	}
	if o := u.Outbox; o == nil {
		fmt.Fprintf(w, "outbox\tcannot be opened: messages of modules are not taken\n")
	} else if o.Pending > 0 {
		fmt.Fprintf(w, "outbox\t%d messages wait for the hub, %s on the disk\n", o.Pending, schema.Bytes(o.Bytes).Short())
	}
}
