package main

import (
	"log/slog"
	"time"
)

// A link that changes more often than this has something wrong with it.
const (
	linkChanges = 10 // in each
	linkWindow  = time.Minute
)

// linkNews says in the log, and to the parts that act on it, how the link to
// the hub changes. When a disk was copied, two devices have one identity and cut
// each other off twice a second, for ever: that is said once, and does not send
// them to the fleet repository each time.
type linkNews struct {
	log   *slog.Logger
	kick  func() // something can be sent to the hub
	moved func() // the repository may have moved unheard

	recent []time.Time // changes within linkWindow
	flaps  bool
}

// changed is called with each change; now is when.
func (n *linkNews) changed(up bool, now time.Time) {
	for len(n.recent) > 0 && now.Sub(n.recent[0]) > linkWindow {
		n.recent = n.recent[1:]
	}
	n.recent = append(n.recent, now)
	flapped := n.flaps
	n.flaps = len(n.recent) > linkChanges
	if n.flaps && !flapped {
		n.log.Warn("link to the hub comes and goes: does another device have this one's identity, from a copied disk, or is the network bad? further changes are not shown until it has calmed down")
	}
	if !n.flaps {
		n.log.Info("link to the hub", "up", up)
	}
	if up {
		n.kick()
	}
	if up && !n.flaps {
		n.moved()
	}
}
