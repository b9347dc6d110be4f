package twin

// Document is a twin: of a device when Module is empty, of a module otherwise.
// Both have the same structure and the same API.
type Document struct {
	Device     string         `json:"device"`
	Module     string         `json:"module,omitempty"`
	Removed    bool           `json:"removed,omitempty"` // the module is no longer declared: nothing is left but the versions, which go on when it is again
	Tags       map[string]any `json:"tags,omitempty"`    // a module never gets to see them
	Properties Properties     `json:"properties"`
}

// Properties are the two halves of a twin.
type Properties struct {
	Desired  Section `json:"desired"`  // from Git
	Reported Section `json:"reported"` // from the module, or from the agent
}

// Section is one half: a JSON object that also carries $version, $metadata and,
// in desired, $source and $override.
type Section struct {
	Values   map[string]any // without the $ members
	Version  uint64         // rises by at least 1 with each change; never goes back
	Metadata map[string]any // mirrors Values with $lastUpdated and $lastUpdatedVersion at each leaf
	Source   string         // the commit that desired comes from
	Override *Override      // what somebody set on the device, and Values has in it; nil for none
}
