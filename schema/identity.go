package schema

// Identity is what a definition says of the identity of a module. Its name and
// its key are not there to say: they are the device's.
type Identity struct {
	Allow Allow `json:"allow,omitzero"`
}

// Allow is what the identity of a module may do beyond its own subjects, within
// what the device's owner permits (AgentConfig.Grants).
type Allow struct {
	Publish   []string `json:"publish,omitempty"`   // NATS subjects on the device, wildcards allowed; never below devices., $ or _INBOX
	Subscribe []string `json:"subscribe,omitempty"` // the same
	Call      []string `json:"call,omitempty"`      // direct methods of other modules: "<module>/<method>", or "<module>/*"
}

// Grants bound what definitions may allow modules. The zero value permits
// calls between modules, and no further subject.
type Grants struct {
	Publish   []string `json:"publish,omitempty"`   // NATS subjects that a definition's may be, or be narrower than
	Subscribe []string `json:"subscribe,omitempty"` // the same
	NoCalls   bool     `json:"noCalls,omitempty"`   // modules may not call each other
}
