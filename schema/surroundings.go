package schema

import "time"

// Surroundings are what a report says beside modules and revisions: how messages
// pass, and what on the device is not as Git says though everything runs. What
// moves all the time is told when it has changed much, so that an idle device
// reports nothing; `tidemark status` has it as it is.
type Surroundings struct {
	Hub       *HubReport        `json:"hub,omitempty"`       // nil: the device stands alone
	Outbox    *OutboxReport     `json:"outbox,omitempty"`    // nil: of an agent that has none
	Unrouted  map[string]uint64 `json:"unrouted,omitempty"`  // messages that no route takes, by "<module>/<output>"; those that there is no room to name as "others"
	Clock     *ClockReport      `json:"clock,omitempty"`     // shown, and never decided by
	Overrides []OverrideReport  `json:"overrides,omitempty"` // drift: what somebody on the device set over desired; at most MaxOverridesReported
}

// HubReport is how the link to the hub is.
type HubReport struct {
	URL     string    `json:"url"` // as configured
	Linked  bool      `json:"linked"`
	Since   time.Time `json:"since,omitzero"`    // since when Linked is so, or the agent runs
	Problem string    `json:"problem,omitempty"` // why it is not linked, where a person has to do something about it
}

// OutboxReport is how the messages of modules stand that are on the disk.
type OutboxReport struct {
	Lanes   map[string]LaneReport `json:"lanes,omitempty"`   // by route
	Problem string                `json:"problem,omitempty"` // why messages are not taken, or go by the routes of before; empty when all is well
}

// LaneReport is one route's queue. Counts are since the agent was started.
type LaneReport struct {
	Pending   uint64            `json:"pending"`           // messages that wait
	Bytes     int64             `json:"bytes"`             // on disk
	Oldest    time.Time         `json:"oldest,omitzero"`   // since when the oldest waits, by the device's clock of now; zero when none does
	Delivered uint64            `json:"delivered"`         // messages that the hub, or the module, has
	Refused   uint64            `json:"refused,omitempty"` // messages that the sender was told there is no room for
	Lost      map[string]uint64 `json:"lost,omitempty"`    // messages that do not come, by reason
	Problem   string            `json:"problem,omitempty"` // why nothing goes on; empty when it does
}

// ClockReport says whether the device's wall clock can be believed.
type ClockReport struct {
	Trusted bool   `json:"trusted"`
	Why     string `json:"why,omitempty"` // why not
}

// OverrideReport is an override of desired that is in force; `tidemark twin get`
// has what it sets.
type OverrideReport struct {
	Module string    `json:"module,omitempty"` // empty: the device's own twin
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until,omitzero"` // when it ends by itself, by the device's clock when it was set; zero: it does not
}

// MaxOverridesReported is how many overrides a report lists.
const MaxOverridesReported = 32
