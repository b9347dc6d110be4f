package twin

import "time"

// Override is a merge patch over what Git says of desired, that somebody on the
// device set for a while: drift, with a name on it. It ends by itself.
type Override struct {
	Patch  map[string]any `json:"patch"`          // RFC 7396, over properties.desired of the commit
	By     string         `json:"by"`             // who set it
	Reason string         `json:"reason"`         // why
	At     time.Time      `json:"at"`             // when, by the device's clock
	Until  time.Time      `json:"until,omitzero"` // when it ends, by the device's clock, which may be wrong: what ends it is the time that passes
}
